"""Steps that make feature stores: extract, import, whiten, concatenate."""
