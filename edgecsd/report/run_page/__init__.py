"""The page of a run: queries, what both models find, embedding maps, curves."""
