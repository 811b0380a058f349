"""The hub: packages that are named there, and packages that are put there."""
