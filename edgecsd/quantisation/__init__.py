"""Precisions, and what every 8-bit export shares: calibration, bias correction, equalisation, range guard."""
