"""Fine-tuning that honours a freeze mask: mechanics alone, on masks that somebody else has verified."""
