"""The log of JSON lines: gone on with, begun anew, and whole again after a kill."""

from __future__ import annotations

import json
from pathlib import Path

from edgecsd.files.json_lines import JsonLog, has_other_header


def test_lines_are_there_again(tmp_path: Path) -> None:
    file, header = tmp_path / "folder" / "log.jsonl", {"settings": [1, (2, 3)]}
    JsonLog(file, header).add({"n": 1})
    again = JsonLog(file, header)
    assert again.lines == [{"n": 1}] and not has_other_header(file, header)
    again.add({"n": 2})
    assert JsonLog(file, header).lines == [{"n": 1}, {"n": 2}]
    assert has_other_header(file, {"settings": []}) and not has_other_header(tmp_path / "none", header)
    assert JsonLog(file, {"settings": []}).lines == []
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"settings": []}]


def test_what_is_added_behind_half_a_line_is_not_lost(tmp_path: Path) -> None:
    file, header = tmp_path / "log.jsonl", {"a": 1}
    JsonLog(file, header).add({"n": 1})
    with open(file, "a") as handle:
        handle.write('{"n": 2, "cut sh')
    after = JsonLog(file, header)
    assert after.lines == [{"n": 1}]
    after.add({"n": 3})
    assert JsonLog(file, header).lines == [{"n": 1}, {"n": 3}]
