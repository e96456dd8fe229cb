"""Retrieval of a query model in a gallery: mAP, mP@k, recall@k, overlap@k, and comparisons with intervals."""
