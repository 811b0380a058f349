"""Slices outside of a release: a package is held against its ledger, and so is a picture."""
