"""Core ML: convert, quantise, describe, and evaluate on any machine."""
