"""Label-free losses that work from cached gallery features; one a file, each with its paper."""
