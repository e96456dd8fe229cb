"""Judges measured evidence against thresholds and gives the verdict; runs no model."""
