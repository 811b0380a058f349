"""Compare a fine-tuned model with the published one, tensor by tensor: did what a freeze mask names stay as it is?

Reads names and numbers; runs no network and nothing that the upload brings.
"""
