"""Bytes on disk: whole files or none, locks, JSON lines, Arrow columns, downloads."""
