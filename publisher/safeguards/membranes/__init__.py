"""Membranes: side branches of the denoiser that a prompt opens, attached when the model is used."""
