"""Milvus: the only package that imports pymilvus."""
