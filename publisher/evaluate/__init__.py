"""Claims to checks to verdicts: attacks, scores, metrics, gates, evidence. Does not know how a step did its work."""
