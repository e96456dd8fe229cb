"""One package an index engine."""
