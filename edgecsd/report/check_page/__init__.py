"""The page of a check: the verdict and its evidence."""
