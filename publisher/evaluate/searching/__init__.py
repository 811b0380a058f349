"""Attacks that search: one model after the other searched, finds judged on fresh seeds, and kept or sealed."""
