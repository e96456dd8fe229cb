"""Photos in, a checked TFLite file out: the main job through the library, step by step.

python examples/from_photos_to_phone.py PHOTOS OUT
"""

import sys
from pathlib import Path

import edgecsd

photos, out = edgecsd.find_images(sys.argv[1]), Path(sys.argv[2])
store, index, run = out / "gallery.store", out / "gallery.index", out / "run"
reporter = edgecsd.ConsoleReporter()

edgecsd.extract(photos, "timm:tf_efficientnet_lite2", store, views=1, reporter=reporter)
edgecsd.build_index(store, index, overwrite=True, reporter=reporter)
edgecsd.distill(photos, store, run, reporter=reporter)
artifact = edgecsd.export(run, "tflite", "w8a8", calibration=photos, overwrite=True, reporter=reporter).path
result = edgecsd.check(artifact, index, photos, reference=store, reporter=reporter)
for gate in result.gates:
    print("pass" if gate.passed else "FAIL", gate.name, round(gate.figure, 4))
print("may ship" if result.passed else "must not ship", artifact)
