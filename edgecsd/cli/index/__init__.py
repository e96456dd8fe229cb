"""edgecsd index: one file a sub-command."""
