"""The consumer's side: a model folder as a pipeline that draws. Runs no plugin code; importing it imports no torch."""
