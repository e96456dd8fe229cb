"""Photos in, a checked TFLite file out: the main job through the library, step by step.

python examples/from_photos_to_phone.py PHOTOS OUT
"""

import sys
from pathlib import Path

from edgecsd.check.check import check
from edgecsd.exporting.export import export
from edgecsd.gallery.extract import extract
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.photos.finding import find_images
from edgecsd.progress import ConsoleReporter
from edgecsd.training.distill import distill

photos, out = Path(sys.argv[1]), Path(sys.argv[2])
store, index, run = out / "gallery.store", out / "gallery.index", out / "run"
reporter = ConsoleReporter()

extract(find_images(photos), "timm:tf_efficientnet_lite2", store, views=1, reporter=reporter)
build_index(store, index, overwrite=True, reporter=reporter)
distill(find_images(photos), store, run, reporter=reporter)
artifact = export(run, "tflite", "w8a8", calibration=find_images(photos), overwrite=True, reporter=reporter).path
result = check(artifact, index, find_images(photos), reference=store, reporter=reporter)
for gate in result.gates:
    print("pass" if gate.passed else "FAIL", gate.name, round(gate.figure, 4))
print("may ship" if result.passed else "must not ship", artifact)
