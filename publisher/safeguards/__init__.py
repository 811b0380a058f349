"""Safeguards: what travels beside the weights and binds those who use the model. One folder a safeguard."""
