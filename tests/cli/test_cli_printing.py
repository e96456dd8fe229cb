"""What the command line prints, in this process: help, rows without figures, errors, JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edgecsd import cli
from edgecsd.cli.bench.table import exit_code
from edgecsd.measuring.schema import BenchProtocol, BenchResult, BenchRow, Status
from edgecsd.training.run_folder import DistillResult, Stage
from edgecsd.training.settings import DistillConfig

COMMANDS = sorted(cli.COMMANDS)


def test_the_commands() -> None:
    assert set(COMMANDS) >= {
        "bench",
        "check",
        "demo",
        "distill",
        "doctor",
        "evaluate",
        "export",
        "extract",
        "import-features",
        "index",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    result = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: edgecsd {name}" in result.output


def every_command() -> list[tuple[str, Any]]:
    """Words and typer's own object of each command and group."""
    found: list[tuple[str, Any]] = [("", typer.main.get_command(cli.app)), *((n, cli.load(n)) for n in cli.COMMANDS)]
    for name, command in found:  # which grows
        found += [(f"{name} {inner}".strip(), each) for inner, each in getattr(command, "commands", {}).items()]
    return found


@pytest.mark.parametrize(("name", "command"), every_command())
def test_help_loses_no_square_brackets(name: str, command: Any) -> None:
    """Rich, which typer prints help with, takes [word] for markup unless it is escaped."""
    shown = " ".join(CliRunner().invoke(cli.app, [*name.split(), "--help"], env={"COLUMNS": "1000"}).output.split())
    told = [command.help or "", command.epilog or "", *(getattr(each, "help", None) or "" for each in command.params)]
    for text in told:
        for written in re.findall(r"\[[^\]]*\]", text):
            assert written in shown, f"{written} is lost: write \\\\{written} in the source"


def test_the_help_of_distill_tells_every_default() -> None:
    options = {each.name: each.help for each in dict(every_command())["distill"].params}
    told = {name: re.findall(r"\(([^()]*)\)\.$", text or "") for name, text in options.items()}
    defaults = {name: field.default for name, field in DistillConfig.model_fields.items() if name in options}
    for name, default in defaults.items():
        if default is not None and not isinstance(default, bool):
            assert len(told[name]) == 1 and type(default)(told[name][0]) == default, name
    shown = " ".join(CliRunner().invoke(cli.app, ["distill", "--help"], env={"COLUMNS": "1000"}).output.split())
    assert "0 leaves it out (2)." in shown and "rate of the backbone (0.0001)." in shown and "(closed-form)." in shown
    assert "[csd-kl | csd-l2 | csd-l1 | regression | ssp | rop | d3still | raml]" in shown


@pytest.mark.parametrize(("out", "proposed"), [("here", "here-adapted"), (".", "{folder}-adapted")])
def test_what_comes_after_distill_can_be_pasted(
    out: str, proposed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = DistillResult(tmp_path, (Stage("head", 0.5, 0.5),), 10)
    monkeypatch.setattr("edgecsd.training.distill.distill", lambda *_, **__: result)
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "g.store"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    done = CliRunner().invoke(cli.app, ["distill", "photos", "--gallery", "g.store", "--out", out])
    assert done.exit_code == 0, done.output
    place = proposed.format(folder=tmp_path)
    assert f"edgecsd adapt {out} --gallery ITS.store --out {place}" in " ".join(done.stdout.split())


def bench_row(status: Status) -> BenchRow:
    return BenchRow(
        file="run/exports/x.tflite",
        sha256="0",
        size_bytes=4_900_000,
        target="tflite",
        precision="w8a8",
        status=status,
        reason="it ran out of memory",
        provenance="measured on a test",
        label="host CPU, not a phone",
        threads=4,
        protocol=BenchProtocol(name="quick", min_runs=1, min_seconds=0, repeats=1),
        oversubscribed=False,
        input="synthetic",
        input_count=4,
        input_digest="0",
        reference="none",
        environment={},
        measured_at="now",
    )


@pytest.mark.parametrize(("status", "code"), [(Status.FAILED, 1), (Status.NOT_MEASURABLE, 4)])
def test_bench_rows_without_figures(
    status: Status, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgecsd.measuring.bench.bench", lambda *_, **__: BenchResult(rows=(bench_row(status),)))
    monkeypatch.setattr(sys, "argv", ["edgecsd", "bench", "x.tflite"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == code
    text = capsys.readouterr().out
    assert re.search(rf"^x\.tflite +4 +{status.value} +- +- +- +- +4\.90 +-$", text, re.MULTILINE)
    assert "x.tflite, 4 threads: it ran out of memory" in text


def test_one_row_that_was_measured_is_enough() -> None:
    ok = BenchRow.model_construct(status=Status.OK)
    assert exit_code([bench_row(Status.NOT_MEASURABLE), ok]) == 0
    assert exit_code([bench_row(Status.NOT_MEASURABLE), ok, bench_row(Status.FAILED)]) == 1


def run_main(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("edgecsd.doctor.doctor", fail)
    monkeypatch.setattr(sys, "argv", ["edgecsd", "doctor"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_errors_of_the_system_and_bugs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("EDGECSD_DEBUG", raising=False)
    assert run_main(monkeypatch, OSError(28, "No space left on device", "out/x")) == 2
    assert "No space left on device: out/x; free some space" in capsys.readouterr().err
    assert run_main(monkeypatch, KeyboardInterrupt()) == 130
    assert "interrupted" in capsys.readouterr().err
    assert run_main(monkeypatch, ZeroDivisionError("division by zero")) == 70
    assert "internal error, which is a bug: ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    from edgecsd.cli.console import finish

    document = {"path": Path("a"), 1: [float("nan"), float("inf"), 0.5, None, True], "nested": {"k": (1, "x")}}
    finish(True, document, text="not shown", wrote=Path("b"))
    expected = {"path": "a", "1": [None, None, 0.5, None, True], "nested": {"k": [1, "x"]}}
    assert json.loads(capsys.readouterr().out) == expected
