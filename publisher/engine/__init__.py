"""Plan and run the steps of a release: base plus deltas, cached by content, resumed after a kill."""
