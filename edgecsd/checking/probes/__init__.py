"""Content probes: what the identity of an embedding space cannot catch, because two spaces of one dimension look alike.

The vectors in an index by themselves, against the store it was built from, against gallery photos embedded again, and
its actual search against an exact one.
"""
