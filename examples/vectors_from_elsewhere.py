"""The gallery model is somebody's API: only its vectors are here. Import them, index them, search.

python examples/vectors_from_elsewhere.py VECTORS.npy IDS.txt OUT
"""

import sys
from pathlib import Path

import edgecsd

vectors, ids, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])

store = edgecsd.import_features(
    vectors, out / "gallery.store", ids=ids, space="acme-embedder-v7", normalise=True, overwrite=True
)
index = edgecsd.build_index(store, out / "gallery.index", type="hnsw", overwrite=True)
scores, rows = index.search(store.vectors()[:1], 5)
for score, row in zip(scores[0], rows[0], strict=True):
    print(f"{score:.4f} {index.ids[row]}")
