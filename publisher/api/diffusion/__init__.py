"""What every method that runs the denoiser needs: prompts as it reads them, latents, its loss, threads, checkpoints.

Import the modules, not this package: they import torch.
"""
