"""The gallery index: what it may be, opened, searched and tuned.

kinds.py          what can be built, its parameters, and which of them a search may change
gallery_index.py  GalleryIndex, opened and searched
engine.py         what every engine offers; engines/ has one package for each
opening.py        from a path or an address to a GalleryIndex
exact.py          exact neighbours among stored vectors
tuning.py         which type and search parameters reach a recall, and how fast
"""
