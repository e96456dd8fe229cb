"""Retrieval figures and their uncertainty, from rankings; NumPy only."""
