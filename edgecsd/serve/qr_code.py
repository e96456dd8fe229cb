"""An address as a QR code on the terminal (segno)."""

from __future__ import annotations

from segno import make


def print_code(url: str) -> None:
    """Print the code of `url` to stdout, two rows of modules a line."""
    make(url, micro=False, error="l").terminal(compact=True)
