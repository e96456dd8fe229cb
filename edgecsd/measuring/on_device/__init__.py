"""Programs that are copied to a device and run there; each stands alone."""
