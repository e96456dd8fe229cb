"""faiss: the only package that imports it."""
