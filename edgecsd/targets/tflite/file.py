"""The bytes of a TFLite file: read whole, or refused as damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecsd.errors import BadInputError, DamagedFileError, missing_extra

try:
    from ai_edge_litert import schema_py_generated as schema
except ImportError as error:
    raise missing_extra(error.name or "ai-edge-litert", "tflite") from None

FILE_IDENTIFIER = b"TFL3"


def read_whole(path: Path) -> bytes:
    """The file's bytes, after a look at what the runtime trusts blindly: that every buffer lies inside the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from None
    if data[4:8] != FILE_IDENTIFIER:
        raise DamagedFileError(f"{path}: not a TFLite file: {FILE_IDENTIFIER.decode()} is missing at byte 4")
    try:
        model = schema.Model.GetRootAs(data, 0)
        ends = [_end_of_buffer(model.Buffers(i)) for i in range(model.BuffersLength())]
        whole = model.SubgraphsLength() > 0 and bool(ends) and max(ends) <= len(data)
    except Exception:
        raise damaged(path, len(data)) from None
    if not whole:
        raise DamagedFileError(f"{path}: not a whole TFLite file: its tensors reach beyond its {len(data)} bytes")
    return data


def _end_of_buffer(buffer: Any) -> int:
    """One past the last byte of a buffer's data in the file; 0 if it has none."""
    field = buffer._tab.Offset(4)  # 4: slot of `data` in the Buffer table of the TFLite schema
    return int(buffer._tab.Vector(field) + buffer._tab.VectorLen(field)) if field else 0


def damaged(path: Path, length: int) -> DamagedFileError:
    """The error for a file whose tables cannot be followed."""
    return DamagedFileError(
        f"{path}: not a whole TFLite file: its tables point beyond its {length} bytes; it was cut or changed"
    )
