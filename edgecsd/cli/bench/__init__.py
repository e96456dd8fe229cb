"""edgecsd bench: one file a sub-command."""
