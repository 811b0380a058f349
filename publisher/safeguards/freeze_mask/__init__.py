"""The freeze mask: what a fine-tuning is to leave as it was published, and how that is kept and checked."""
