"""Artifacts: exported files, the way to their targets, and an exported file as an Embedder. Loads no converter."""

from __future__ import annotations

import importlib
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.metadata import ArtifactMetadata, Target, metadata_from_json

if TYPE_CHECKING:
    from edgecsd.targets.deploy import DeployModel


INPUT_NAME, OUTPUT_NAME = "image", "embedding"
_ALIASES = {"litert": Target.TFLITE}
# Which photos a target's artifacts can take whose resize is inside: of any size, or of one that is declared
BAKES_ANY_SIZE, BAKES_ONE_SIZE = frozenset({Target.ONNX}), frozenset({Target.ONNX, Target.TFLITE})


def parse_target(name: str) -> Target:
    """The target called `name`; "litert" is tflite's other name."""
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        return Target(name)
    except ValueError:
        known = ", ".join([*Target, *(f"{alias} (= {target})" for alias, target in _ALIASES.items())])
        raise BadInputError(f"target {name!r} is not known; choose one of: {known}") from None


class Runner(Protocol):
    """An artifact that is ready to run.

    kind   what runs it, in words for a table: "onnxruntime 1.32, CPU"
    """

    kind: str

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(1, S, S, 3) uint8, or (1, h, w, 3) where the resize is inside, by `ArtifactMetadata.input` -> (1, dim)."""
        ...

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, S, S, 3) or (B, h, w, 3) uint8 -> (B, dim), one image at a time."""
        ...


class OneByOne:
    """`embed` for runners whose artifact has a static batch of 1, and the check of what goes in.

    size   of the input: the side of a square, or where the resize is inside (height, width), or None for any
    """

    kind: str

    def __init__(self, size: int | tuple[int, int] | None) -> None:
        self.sides = (size, size) if isinstance(size, int) else size

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise NotImplementedError

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) == 0:
            raise BadInputError("no image to embed")
        return np.concatenate([self.embed_one(pixels[i : i + 1]) for i in range(len(pixels))])

    def check(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pixels; BadInputError with the shape and type that are expected."""
        sides = self.sides or (pixels.shape[1:3] if pixels.ndim == 4 and min(pixels.shape) > 0 else ("h", "w"))
        if pixels.shape != (1, *sides, 3) or pixels.dtype != np.uint8:
            raise BadInputError(
                f"the artifact takes (1, {sides[0]}, {sides[1]}, 3) uint8 pixels, not {pixels.shape} {pixels.dtype}"
            )
        return pixels


EIGHT_BIT_RECIPES = frozenset({Target.ONNX, Target.TFLITE})  # targets whose w8a8 has several


class TargetModule(Protocol):
    """What every edgecsd/targets/<target>/target.py offers; tests/targets/test_contract.py holds them to it."""

    PRECISIONS: frozenset[Precision]
    HALF_PRECISIONS: frozenset[Precision]  # those whose file computes in fp16, whatever its weights are
    RECIPES: dict[Precision, str]  # the name of the recipe that the target's convert.py follows

    def versions(self) -> dict[str, str]:
        """Versions of the converter and the runtime."""
        ...

    def read_metadata_json(self, path: Path) -> str: ...

    def load_runner(self, path: Path, threads: int) -> Runner: ...


def target_module(target: Target) -> TargetModule:
    """The module of a target; it loads that target's converter and runtime, or raises MissingBackendError."""
    with quiet_conversion(f"loading what {target} needs"):  # coremltools and LiteRT talk while they are imported
        module: Any = importlib.import_module(f"edgecsd.targets.{target}.target")
    return module  # type: ignore[no-any-return]


def convert(
    target: Target,
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
    how: EightBit = STANDARD,
) -> None:
    """Write `model` to `out` by edgecsd/targets/<target>/convert.py, which loads the target's converter.

    calibration  (n, S, S, 3) uint8, used by w8a8 alone
    how          of w8a8; BadInputError for a target that has one recipe only
    """
    if how != STANDARD and target not in EIGHT_BIT_RECIPES:
        raise BadInputError(f"target {target} has one recipe for w8a8, not {how.changes}")
    with quiet_conversion(f"loading the converter to {target}"):
        module: Any = importlib.import_module(f"edgecsd.targets.{target}.convert")
    module.convert(model, out, precision, calibration, metadata, how)


def target_of(path: Path) -> Target:
    """The target of an artifact, by its suffix."""
    for target in Target:
        if path.suffix in target.suffixes:
            return target
    known = ", ".join(suffix for target in Target for suffix in target.suffixes)
    raise BadInputError(f"{path}: not an artifact: its name must end in {known}")


def require_present(path: Path) -> Target:
    """The target of an artifact that is on disk and is a file (a folder for .mlpackage and .aimodel)."""
    target = target_of(path)
    if not path.exists():
        raise BadInputError(f"{path}: no such artifact")
    if path.is_dir() != target.is_folder:
        raise DamagedFileError(f"{path}: a {'folder' if target.is_folder else 'file'} is expected for {target}")
    return target


def read_metadata(path: Path) -> ArtifactMetadata:
    """What the artifact at `path` says about itself.

    Raises BadInputError for a missing file or one that edgecsd did not write, DamagedFileError for a broken one.
    """
    target = require_present(path)
    metadata = metadata_from_json(target_module(target).read_metadata_json(path), str(path))
    if metadata.target is not target:
        raise DamagedFileError(f"{path}: its metadata says {metadata.target}, its suffix says {target}")
    return metadata


def no_metadata(path: Path) -> BadInputError:
    """The error for a readable model that edgecsd did not write."""
    return BadInputError(f"{path}: has no edgecsd metadata: edgecsd did not write it; make one with edgecsd export")


def load_runner(path: Path, *, threads: int = 1) -> Runner:
    """The artifact at `path`, ready to run on `threads` CPU threads; raises as read_metadata does."""
    if threads < 1:
        raise BadInputError(f"{threads} threads: 1 or more are needed")
    read_metadata(path)
    return target_module(target_of(path)).load_runner(path, threads)


def session_options(metadata: ArtifactMetadata, *, here: bool = True) -> dict[str, str]:
    """onnxruntime's settings for an artifact, on this machine or, not `here`, on any; {} for other runtimes."""
    if metadata.target is not Target.ONNX:
        return {}
    # x86 without VNNI multiplies u8 by s8 with VPMADDUBSW, which saturates: cosine 0.86 instead of 0.99 (Lite0, on
    # AVX2, measured). With this option the same file runs there by exact kernels. ARM and VNNI are exact without it, to
    # the same bits, and on VNNI it would double the time (Lite0: 11.6 ms instead of 5.8, measured).
    options = {} if here and multiplies_bytes_exactly() else {"session.x64quantprecision": "1"}
    if metadata.precision is Precision.W8A32:
        # Weights are expanded once, at load; by default onnxruntime keeps the 8-bit form and expands it in every run.
        options["session.disable_quant_qdq"] = "1"
    return options


def latency_measurable(target: Target) -> bool:
    """Whether this machine runs the target's artifacts by the runtime a device has.

    Core ML runs on macOS only; for Core AI there is a reference runtime, here and there.
    """
    return target is not Target.COREAI and (target is not Target.COREML or platform.system() == "Darwin")


class ArtifactEmbedder:
    """Runs an artifact in its own runtime, one image at a time, as a phone does."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.path, self.metadata = path, read_metadata(path)
        self.preprocess, self.dim = self.metadata.input, self.metadata.dim
        self._runner = load_runner(path, threads=threads)

    @property
    def runtime(self) -> str:
        """What computes the embeddings, in words."""
        return self._runner.kind

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, S, S, 3) uint8, or (B, h, w, 3) where the resize is inside -> (B, dim) float32."""
        return self._runner.embed(pixels)


EXACT_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})  # 8-bit dot products that don't saturate
CPUINFO = Path("/proc/cpuinfo")


@cache
def multiplies_bytes_exactly(cpuinfo: Path = CPUINFO) -> bool:
    """Whether every core multiplies unsigned by signed bytes without saturation (VNNI); False where unknown."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    flags = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return bool(flags) and all(EXACT_FLAGS & core for core in flags)
