"""Release tool for publishers of text-to-image models."""

__version__ = "0.1.0.dev0"
