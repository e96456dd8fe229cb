"""The self-tests that an app team pastes in: Kotlin, Swift and JavaScript, written from templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

from edgecsd.golden.pack import GoldenItem, GoldenPack

KOTLIN, SWIFT, JAVASCRIPT = "GoldenTest.kt", "GoldenTests.swift", "golden-test.mjs"


def write_self_tests(folder: Path, pack: GoldenPack) -> None:
    """The three files, each with this pack's numbers in it."""
    folder.mkdir()
    for name in (KOTLIN, SWIFT, JAVASCRIPT):
        (folder / name).write_text(render(name, pack), encoding="utf-8")


def render(name: str, pack: GoldenPack) -> str:
    """The text of one self-test. Every @WORD@ of its template stands for a value of the pack."""
    text = resources.files("edgecsd.golden").joinpath("templates", name).read_text("utf-8")
    metadata, limits = pack.artifact.metadata, pack.tolerances
    quoted = _swift_text if name == SWIFT else _kotlin_text
    values = {
        "NAME": pack.artifact.name, "SHA256": pack.artifact.sha256, "FINGERPRINT": pack.fingerprint,
        "SIZE": metadata.preprocess.size, "DIM": metadata.dim, "GRID": pack.grid, "K": pack.k,
        "DECODED_MEAN": limits.decoded_mean, "TENSOR_MEAN": limits.tensor_mean, "TENSOR_MAX": limits.tensor_max,
        "COSINE": limits.cosine, "NORM_ERROR": limits.norm_error, "END_TO_END_COSINE": limits.end_to_end_cosine,
        "MAX_DIFFERENCE": 2.0 if limits.max_difference is None else limits.max_difference, "OVERLAP": limits.overlap,
        "MISTAKES": _lines(map(quoted, pack.mistakes)),
        "ITEMS": _lines(_item(item, quoted, swift=name == SWIFT) for item in pack.items),
    }  # fmt: skip
    for word, value in values.items():
        text = text.replace(f"@{word}@", str(value))
    return text


def _lines(values: Iterable[str]) -> str:
    """No comma behind the last: Kotlin before 1.4 refuses it."""
    return ",\n".join(f"        {value}" for value in values)


def _item(item: GoldenItem, quoted: Callable[[str], str], *, swift: bool) -> str:
    """The call that makes one item: both languages write it alike but for the labels and the list of ids."""
    ids = ", ".join(map(quoted, item.ids))
    stem = quoted(Path(item.photo).stem)
    if swift:
        return f"GoldenItem(name: {stem}, orientation: {item.orientation}, width: {item.width}, " \
            f"height: {item.height}, ids: [{ids}])"  # fmt: skip
    return f"GoldenItem({stem}, {item.orientation}, {item.width}, {item.height}, listOf({ids}))"


def _kotlin_text(value: str) -> str:
    """A Kotlin literal: JSON's escapes are Kotlin's, and $ would start a template."""
    return json.dumps(value).replace("$", "\\$")


def _swift_text(value: str) -> str:
    r"""A Swift literal: its escape of a code unit is \u{...}, so only quotes, backslashes and controls are escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    plain = "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in escaped)
    return f'"{plain}"'
