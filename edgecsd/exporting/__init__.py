"""From a run folder to one exported file that was read back and run."""
