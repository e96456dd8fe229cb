"""Rows of schema_version 1, which had three shapes (hosts', the page's, other tools'), as rows of today."""

from __future__ import annotations

from typing import Any

from edgecsd.bench.schema import PAGE, SCHEMA_VERSION


def as_row_of_today(document: Any) -> Any:
    """A parsed line; what is no row of schema_version 1 stays as it is, for the schema to judge."""
    if not isinstance(document, dict) or document.get("schema_version") != 1:
        return document
    row = {**document, "schema_version": SCHEMA_VERSION}
    if "tool" in row:
        row["backend"] = row.pop("compute_units", "")
        return _with_series(row, row["tool"])
    if "backend" in row:
        row["tool"] = PAGE
        figures = row.get("figures")
        if isinstance(figures, dict) and (p50_ms := figures.pop("decode_p50_ms", None)) is not None:
            row["decode"] = {"decoder": PAGE, "p50_ms": p50_ms}
        warmup = {name: row.pop(name, None) for name in ("warmup_runs", "warmup_settled")}
        return _with_series(row, row.get("environment", {}).get("runtime", ""), **warmup)
    return row


def _with_series(row: dict[str, Any], runtime: str, **more: Any) -> dict[str, Any]:
    """The raw series, which lay in the row itself, as its only repeat."""
    wall_ns, figures = row.pop("wall_ns", ()), row.get("figures")
    if wall_ns and figures is not None:
        row["repeats"] = [{"runtime": runtime, "figures": figures, "wall_ns": wall_ns, **more}]
    return row
