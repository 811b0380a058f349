"""Fine-tuning that honours a freeze mask: mechanics alone, on masks that have been verified elsewhere."""
