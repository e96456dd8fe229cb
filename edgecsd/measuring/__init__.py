"""Latency, memory and parity of artifacts on this machine and on others; importing it loads no model library."""
