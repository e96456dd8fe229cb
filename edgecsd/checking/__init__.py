"""check: may this artifact be searched in this gallery index? Evidence, verdict and page of one pair.

pairing.py   the file with its torch model, the index with its store, the photos with the gallery model's features
gather.py    every link embedded and searched, put together as evidence
search.py    exact search in bounded memory, and the actual index's
"""
