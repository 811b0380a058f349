"""Load a released package for use: verified, with its membranes attached."""
