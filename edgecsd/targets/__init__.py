"""One file a target: convert, quantise, write and read metadata, run. `artifact` is the light door to all of them."""
