"""The one file of rows: all shapes of schema_version 1 are read, half lines passed over, other lines refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.measuring.plots import plot_rows
from edgecsd.measuring.rows import RowsFile, read_rows
from edgecsd.measuring.schema import OWN, PAGE, BenchRow, Status

OLD = Path(__file__).with_name("rows-v1.jsonl")  # what the version before wrote: bench, two imports, two of the page


def old_lines() -> list[dict[str, object]]:
    return [json.loads(line) for line in OLD.read_text().splitlines()]


def test_old_rows_of_all_three_shapes() -> None:
    lines, rows = old_lines(), read_rows(OLD)
    assert [row.tool for row in rows] == [OWN, "benchmark_model", "AI Hub profile", PAGE, PAGE]
    assert [row.kind for row in rows] == ["measured", "imported", "imported", "measured", "measured"]
    for line, row in zip(lines, rows, strict=True):
        assert row.schema_version == 2 and (row.file, row.provenance) == (line["file"], line["provenance"])
        told = line["figures"]
        if isinstance(told, dict):
            assert row.figures is not None
            kept = {name: value for name, value in told.items() if name != "decode_p50_ms"}
            assert row.figures.model_dump(include=set(kept)) == kept, "no figure may change"
    host, tool, hub, page, failed = rows
    assert host.repeats[0].pid is not None and tool.repeats == () and tool.device == "Pixel 8"
    assert hub.repeats[0].wall_ns == (127000, 129000, 1087000) and hub.backend == lines[2]["compute_units"]
    assert page.repeats[0].wall_ns == tuple(lines[3]["wall_ns"]) and page.backend == "wasm"  # type: ignore[arg-type]
    assert page.decode is not None and page.decode.p50_ms == 6.0 and page.repeats[0].warmup_runs == 20
    assert failed.status is Status.FAILED and failed.repeats == () and failed.reason == "out of memory"


def test_one_table_and_one_plot_of_all(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "show", str(OLD), "--plot", str(tmp_path / "figures")])
    assert done.exit_code == 0, done.output
    assert "measured on Phone/1.0" in done.stdout and "imported: on QCS8550" in done.stdout
    assert "1240.27" not in done.stdout, "a mean is shown where there is no median"
    assert "1239.81" in done.stdout and "brought no embeddings" in done.stdout
    picture = (tmp_path / "figures" / "pareto.svg").read_text()
    assert "Pixel 8" in picture and "not checked" in picture, "of the host's very file: drawn with that row's cosine"
    assert "Phone/1.0" in picture and "QCS8550" not in picture, "nobody knows what that file finds"
    assert (tmp_path / "figures" / "distribution.svg").stat().st_size > 3000
    as_json = json.loads(CliRunner().invoke(app, ["bench", "show", str(OLD), "--json"]).stdout)
    assert len(as_json["rows"]) == 5
    assert plot_rows([], tmp_path / "none") == []


def test_a_half_line_is_passed_over_and_replaced(tmp_path: Path) -> None:
    file, rows = tmp_path / "rows.jsonl", read_rows(OLD)
    kept = RowsFile(file)
    for row in rows[:2]:
        kept.append(row)
    whole = file.read_text()
    file.write_text(whole + rows[2].model_dump_json()[:100])
    assert read_rows(file) == rows[:2]
    RowsFile(file).append(rows[3])
    assert read_rows(file) == [*rows[:2], rows[3]]
    file.write_text(whole.rstrip("\n"))  # whole, if without its end
    RowsFile(file).append(rows[2])
    assert read_rows(file) == rows[:3]


def test_show_tells_what_it_leaves_out(tmp_path: Path) -> None:
    file, whole = tmp_path / "rows.jsonl", OLD.read_text()
    file.write_text(whole[:-100])
    done = CliRunner().invoke(app, ["bench", "show", str(file), "--json"])
    assert done.exit_code == 0 and len(json.loads(done.stdout)["rows"]) == 4
    assert f"{file}: its last line is half a row" in done.stderr.replace("\n", " ")
    for nothing in ("", "\n", whole[:100]):
        file.write_text(nothing)
        refused = CliRunner().invoke(app, ["bench", "show", str(OLD), str(file)])
        assert isinstance(refused.exception, BadInputError) and "holds no bench row" in str(refused.exception)
    file.write_text("no row\n")
    refused = CliRunner().invoke(app, ["bench", "show", str(file)])
    assert isinstance(refused.exception, DamagedFileError) and "--out" not in str(refused.exception)


def test_rows_are_added_beside_those_of_another_kind(tmp_path: Path) -> None:
    file, rows = tmp_path / "rows.jsonl", read_rows(OLD)
    for row in rows:
        RowsFile(file).append(row)
    again = RowsFile(file)
    assert again.find(rows[0].key()) == rows[0]
    again.add(rows[0])
    assert sorted(row.tool for row in read_rows(file)) == sorted(row.tool for row in rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 3},
        {"kind": "guessed"},
        {"surprise": 1},
        {"provenance": "imported: on a Mac"},
        {"figures": None},
        {"status": "failed", "figures": None},
        {"parity": None},
        {"schema_version": None},
    ],
)
def test_what_is_no_row(changes: dict[str, object], tmp_path: Path) -> None:
    row = read_rows(OLD)[0]
    document = {**row.model_dump(mode="json"), **changes}
    with pytest.raises(ValidationError):
        BenchRow.model_validate(document)
    file = tmp_path / "rows.jsonl"
    file.write_text(row.model_dump_json() + "\n" + json.dumps(document) + "\n")
    with pytest.raises(DamagedFileError, match=r"line 2: not a bench row of schema_version 2 .*\)$"):
        read_rows(file)
    with pytest.raises(DamagedFileError, match=r"line 2: not a bench row of schema_version 2 .*choose another `out`"):
        RowsFile(file)  # which is written to: what is advised is the writer's


def test_a_row_of_our_own_has_every_figure() -> None:
    row = read_rows(OLD)[0]
    assert row.figures is not None
    without = {**row.model_dump(), "figures": row.figures.model_copy(update={"p90_ms": None}).model_dump()}
    with pytest.raises(ValidationError, match="reports p90_ms of every row"):
        BenchRow.model_validate(without)
    assert BenchRow.model_validate({**without, "tool": "benchmark_model"}).figures is not None
