"""The consumer's side: a model folder as a pipeline that generates. Runs no plugin code; imports no torch."""
