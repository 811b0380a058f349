"""What every method that runs the denoiser needs: prompts as it reads them, latents, its loss, threads, checkpoints.

Import the modules, not this package: all but ``process`` import torch.
"""
