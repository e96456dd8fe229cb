"""edgecsd bench script: a folder that a colleague with a Mac or an iPhone measures a Core ML artifact with."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.files.whole import replace_whole, sha256_file, write_json
from edgecsd.measuring.inputs import prepare_input
from edgecsd.measuring.parity import References
from edgecsd.photos.images import ImageSet
from edgecsd.targets.artifact import read_metadata
from edgecsd.targets.metadata import Target

PROGRAMS = ("bench_coreml.py", "BenchCoreML.swift")


def write_program(
    file: Path, out: Path, *, images: ImageSet | None = None, run: Path | None = None, overwrite: bool = False
) -> Path:
    """`out`: a Python program, a Swift file, the artifact, and photos with the embeddings that are right.

    What is right: the torch query model of `run`, or of the run that the file lies in, else the file itself by the
    evaluator. Raises BadInputError for an artifact of another target, or where something is at `out` already.
    """
    metadata = read_metadata(file)
    if metadata.target is not Target.COREML:
        raise BadInputError(
            f"{file}: is of target {metadata.target}; bench script is for Core ML (.mlpackage), which runs on Apple's "
            "systems only: measure this one with edgecsd bench FILE --device ssh://USER@HOST"
        )
    if out.exists() and not overwrite:
        raise BadInputError(f"{out}: exists already; give another `out` or `overwrite`")
    prepared, references = prepare_input(images, metadata.preprocess), References(run)
    reference = references.find(file, metadata)
    expected = references.embeddings(reference, prepared)
    with replace_whole(out) as folder:
        folder.mkdir()
        for name in PROGRAMS:
            shutil.copy(Path(__file__).parent / "on_device" / name, folder / name)
        shutil.copytree(file, folder / file.name)
        (folder / "pixels.bin").write_bytes(prepared.pixels.tobytes())
        (folder / "expected.bin").write_bytes(expected.astype("<f4").tobytes())
        about = {
            "model": file.name,
            "sha256": sha256_file(file),
            "count": len(prepared.pixels),
            "size": metadata.preprocess.size,
            "dim": metadata.dim,
            "input": prepared.kind,
            "reference": reference.name,
        }
        write_json(folder / "bench.json", about)
    return out
