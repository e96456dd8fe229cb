"""A log of JSON lines that outlives kills: a header with what all lines share, then a line a finished piece of work."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgecsd.files.whole import replace_whole


class JsonLog:
    """The lines of FILE behind its header; half a line, which a killed process left, is dropped when it is opened."""

    def __init__(self, file: Path, header: dict[str, Any]) -> None:
        """Go on with the file if it has this very header, else begin it anew."""
        self._file = file
        content = file.read_text() if file.is_file() else ""
        found = _whole_lines(content)
        self.lines: list[dict[str, Any]] = found[1:] if found[:1] == [json.loads(json.dumps(header))] else []
        text = "".join(json.dumps(line) + "\n" for line in [header, *self.lines])
        if text != content:
            with replace_whole(file) as temporary:
                temporary.write_text(text)

    def add(self, line: dict[str, Any]) -> None:
        """Append a line; it is on the disk when this returns."""
        self.lines.append(line)
        with open(self._file, "a") as handle:
            handle.write(json.dumps(line) + "\n")
            handle.flush()
            os.fsync(handle.fileno())


def has_other_header(file: Path, header: dict[str, Any]) -> bool:
    """Whether there is a log whose lines belong to something else."""
    found = _whole_lines(file.read_text()) if file.is_file() else []
    return bool(found) and found[0] != json.loads(json.dumps(header))


def _whole_lines(content: str) -> list[dict[str, Any]]:
    """Nothing behind a line that is broken counts."""
    lines = []
    for line in content.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
