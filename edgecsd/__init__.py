"""edgecsd: a small query model for a gallery that a large model embedded, proven before it ships."""

__version__ = "0.1.0"
