"""Attacks by fine-tuning: trials planned, run and recorded, each on every model."""
