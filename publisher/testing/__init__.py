"""What authors of plugins test with. Nothing of it is needed at a release."""
