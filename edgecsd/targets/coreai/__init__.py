"""Core AI (experimental): convert, describe, run."""
