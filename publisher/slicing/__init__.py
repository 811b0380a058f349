"""Slices outside of a release: they are trained here, and packages and pictures are held against their ledger."""
