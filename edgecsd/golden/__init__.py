"""The golden pack of an artifact: photos, tensors, embeddings and results by which an app proves that it does the same.

PACK/
  golden.json       what follows, with digests, tolerances, and what known mistakes would cost
  photos/           encoded photos, chosen so that mistakes show
  tensors/          (size, size, 3) uint8 by the pixel contract, raw bytes
  embeddings/       (dim,) float32 of each tensor by this very file, raw little-endian
  signatures/       what the photo, its tensor and its embedding look like with each known mistake
  selftest/         GoldenTest.kt, GoldenTests.swift, golden-test.mjs
  README.md         what an app team does with it
"""
