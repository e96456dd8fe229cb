"""The gallery index: a faiss index over a feature store, with its search parameters.

kinds.py     what can be built, its parameters, and which of them a search may change
engine.py    the only importer of faiss here: trained indexes, their parts, files
opened.py    GalleryIndex, opened and searched
building.py  from a feature store, in bounded memory and resumable
merging.py   several indexes of one trained quantiser into one
"""
