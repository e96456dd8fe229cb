"""Ways to a device: adb, ssh, and what is run there."""
