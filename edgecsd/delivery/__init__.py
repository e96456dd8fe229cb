"""Folders for app teams: the exported file with its model card and golden pack."""
