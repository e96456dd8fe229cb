"""Options in panels, and in the place of the library's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from edgecsd import cli
from edgecsd.cli.options import RUNNING, arrange, remember, with_options
from edgecsd.errors import BadInputError
from edgecsd.training.settings import DistillConfig


def made(function: Any) -> Any:
    app = typer.Typer(add_completion=False)
    app.command("sample")(function)
    return typer.main.get_command(app)


def sample(
    photos: Path, out: Annotated[Path, typer.Option()], deep: Annotated[bool, typer.Option("--deep/--shallow")] = True
) -> None:
    del photos, out, deep


def test_a_message_has_the_options_of_the_command_that_runs() -> None:
    remember(made(sample))
    text = "`out` x: is there; `deep=False` needs `photos`, and `nprobe` and `deep` stay"
    assert with_options(text) == "--out x: is there; --shallow needs PHOTOS, and `nprobe` and --deep stay"


def test_an_error_names_its_parameters() -> None:
    error = BadInputError("`k` 500: the gallery offers 1 to 99; `anchors` codebook has no `k`")
    assert error.parameters == ("k", "anchors", "k")


def test_the_program_prints_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").touch()
    place = ["--gallery", str(tmp_path), "--out", "run"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["distill", str(tmp_path), *place, "--loss", "raml", "--tau-q", "1"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "edgecsd: error: --tau-q: --loss raml does not use it; leave it out\n"


def test_panels_come_in_order_and_know_their_options() -> None:
    arranged = arrange(made(sample), {"Second": ("out",), RUNNING: ("deep",)})
    assert [(p.name, getattr(p, "rich_help_panel", None)) for p in arranged.params] == [
        ("photos", None),
        ("out", "Second"),
        ("deep", RUNNING),
    ]
    with pytest.raises(ValueError, match="no such parameters"):
        arrange(made(sample), {"Second": ("outt",)})


def test_every_setting_of_distill_that_is_described_is_an_option() -> None:
    options = {parameter.name for parameter in cli.load("distill").params}
    described = {name for name, field in DistillConfig.model_fields.items() if field.description}
    assert described < options and len(described) > 30


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_no_option_without_words(name: str) -> None:
    command = cli.load(name)
    for each in getattr(command, "commands", {"": command}).values():
        for parameter in each.params:
            assert parameter.help or parameter.name in ("batch_size", "threads"), f"{name}: {parameter.name}"
