"""Training of the embedded transformer, ``embedded:emoji-dit``, on the embedded model's autoencoder."""
