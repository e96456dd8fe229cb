"""What a golden pack gives an app team: README.md, and self-tests in Kotlin, Swift and JavaScript from templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

from edgecsd.golden.costs import Costs
from edgecsd.golden.pack import GoldenItem, GoldenPack
from edgecsd.photos.contract import PIXEL_STEPS


def read_me(pack: GoldenPack) -> str:
    limits, metadata = pack.tolerances, pack.artifact.metadata
    size, contract = metadata.preprocess.size, metadata.preprocess
    crop = f", the centre {contract.crop_pct:g} of the shorter side" if contract.resize == "shorter-side" else ""
    lines = [
        f"# Golden pack of {pack.artifact.name}",
        "",
        f"An app that passes computes what this file must give: SHA-256 `{pack.artifact.sha256}`, embedding space "
        f"`{pack.fingerprint}`.",
        "",
        "- Copy this folder into the resources of the app's tests, and the file of your language from `selftest/` into "
        "the tests.",
        f"- Implement `preprocess`: encoded photo -> {size} x {size} x 3 bytes, RGB, rows from the top, 0 to 255. "
        f"Decoded: {PIXEL_STEPS.decoding}.",
        f"- Resize as `{contract.resize}`{crop}, {contract.interpolation} with antialias. The file normalises by "
        "itself.",
        f"- Implement `embed`: those bytes through the file -> {metadata.dim} numbers of length 1.",
        "- `decode` and `search` may be left out; with them the self-test checks more.",
        "- Run it on every device class. Each stage that fails names its likely cause, by what known mistakes give.",
        f"- Tolerances: of 255 levels {limits.tensor_mean:g} in the mean and {limits.tensor_max} at most, cosine "
        f"{limits.cosine:g} from the pack's tensor and {limits.end_to_end_cosine:g} from the photo, overlap@{pack.k} "
        f"{limits.overlap:g}.",
        "- `tensors/` are raw uint8, `embeddings/` raw little-endian float32.",
        "",
        "| photo | pixels, upright | orientation | why |",
        "|---|---|---|---|",
        *(f"| {i.photo} | {i.width} x {i.height} | {i.orientation} | {i.note} |" for i in pack.items),
        "",
    ]
    if pack.costs is not None:
        lines += ["## What mistakes cost", "", cost_words(pack.costs), "", *cost_table(pack.costs), ""]
    return "\n".join(lines)


def cost_words(costs: Costs) -> str:
    return (
        f"Points lost of 100, over {costs.photos} photos: overlap@{costs.k} and recall@1 of this file's results "
        "against its own with right pixels, with 95 % intervals. Photos are taken to be stored sideways where the "
        "orientation is ignored."
    )


def cost_table(costs: Costs) -> list[str]:
    rows = [
        f"| {cost.name} | {cost.overlap_lost:.1f}{_ends(cost.overlap_interval)} "
        f"| {cost.recall_lost:.1f}{_ends(cost.recall_interval)} | {cost.changed:.0%} |"
        for cost in costs.mistakes
    ]
    return [
        f"| mistake | overlap@{costs.k} lost | recall@1 lost | photos that it changes |",
        "|---|---|---|---|",
        *rows,
    ]


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"


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
        "NAME": pack.artifact.name,
        "SHA256": pack.artifact.sha256,
        "FINGERPRINT": pack.fingerprint,
        "SIZE": metadata.preprocess.size,
        "DIM": metadata.dim,
        "GRID": pack.grid,
        "K": pack.k,
        "DECODED_MEAN": limits.decoded_mean,
        "TENSOR_MEAN": limits.tensor_mean,
        "TENSOR_MAX": limits.tensor_max,
        "COSINE": limits.cosine,
        "NORM_ERROR": limits.norm_error,
        "END_TO_END_COSINE": limits.end_to_end_cosine,
        "MAX_DIFFERENCE": 2.0 if limits.max_difference is None else limits.max_difference,
        "OVERLAP": limits.overlap,
        "MISTAKES": _lines(map(quoted, pack.mistakes)),
        "ITEMS": _lines(_item(item, quoted, swift=name == SWIFT) for item in pack.items),
    }
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
        return (
            f"GoldenItem(name: {stem}, orientation: {item.orientation}, width: {item.width}, "
            f"height: {item.height}, ids: [{ids}])"
        )
    return f"GoldenItem({stem}, {item.orientation}, {item.width}, {item.height}, listOf({ids}))"


def _kotlin_text(value: str) -> str:
    """A Kotlin literal: JSON's escapes are Kotlin's, and $ would start a template."""
    return json.dumps(value).replace("$", "\\$")


def _swift_text(value: str) -> str:
    r"""A Swift literal: its escape of a code unit is \u{...}, so only quotes, backslashes and controls are escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    plain = "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in escaped)
    return f'"{plain}"'
