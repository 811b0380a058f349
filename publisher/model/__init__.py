"""A diffusers folder as data: headers, tensors one at a time, digests, deltas, deterministic files. No network runs."""
