"""The command edgecsd precision: what it prints, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.precision_search.results import NothingFitsError


def test_the_command(made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    base = ["precision", str(made), "--target", "onnx"]
    ready = [*base, "--calibration", str(photos), "--gallery", str(pixel_store.path)]
    options = ["--calibration-count", "8", "--max-loss", "90%", "--out", str(tmp_path / "auto.onnx"), "--json"]
    options.append("--layers")
    done = CliRunner().invoke(app, [*ready, *options])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["chosen"]["precision"] == "w8a8" and document["max_loss"] == 0.9
    card, chosen = Path(document["card"]).read_text(), document["chosen"]
    kept = document["torch_overlap"] * (1 - chosen["loss"])
    where = "16 held-out photos, by which the precision was chosen"
    assert f"results | {kept:.3f}, torch {document['torch_overlap']:.3f} | {where} |" in card
    assert f"lost | {chosen['loss']:.2%} [{chosen['low']:.2%}, {chosen['high']:.2%}] | {where} |" in card
    assert "Not measured: retrieval on other photos (`edgecsd check" in card
    costs = [layer["loss"] for layer in document["layers"]]
    assert len(costs) > 10 and costs == sorted(costs, reverse=True)
    assert json.loads((Path(document["folder"]) / "layers.json").read_text()) == document["layers"]
    again = CliRunner().invoke(app, [*ready, *[o for o in options if o != "--json"], "--overwrite"]).stdout
    told_layers = again[again.index("alone in 8 bit, the costliest first") :].splitlines()
    assert told_layers[2].split()[0] == document["layers"][0]["name"] and told_layers[10].startswith(
        f"{len(costs) - 8} more"
    )
    assert all(Path(figure).stat().st_size > 1000 for figure in document["figures"]) and document["figures"]
    too_small = [*ready, "--calibration-count", "8", "--max-loss", "90%", "--max-size", "1kB"]
    too_small += ["--out", str(tmp_path / "small.onnx")]
    failed = CliRunner().invoke(app, [*too_small, "--json"])
    assert isinstance(failed.exception, NothingFitsError) and failed.exception.exit_code == 1
    told = json.loads(failed.stdout)
    assert not list(Path(told["folder"]).glob("layers.[jps]*[!l]")), "those of the search before"
    assert [trial["name"] for trial in told["trials"]] == ["w8a8"], "nothing else can be smaller"
    assert told["chosen"] is None and all("limit 0.00" in trial["lacks"][0] for trial in told["trials"])
    table = CliRunner().invoke(app, too_small).stdout
    assert "lacks" in table.splitlines()[0] and "MB, limit 0.00" in table.splitlines()[2]
    for wrong, said in (
        ([*ready, "--max-size", "6"], "a size such as 6MB or 900kB, or a share"),
        ([*ready, "--max-cpu-ratio", "fast"], "a ratio above 0, such as 0.6"),
        ([*ready, "--max-loss", "much"], "a share from 0 to 1"),
        ([*ready, "--layers", "--target", "coreml"], "`layers`: target coreml can leave no layer"),
        (["export", str(made), "--target", "onnx", "--precision", "auto"], "edgecsd precision RUN --target TARGET"),
    ):
        refused = CliRunner().invoke(app, wrong)
        assert isinstance(refused.exception, BadInputError) and said in str(refused.exception)
    assert CliRunner().invoke(app, base).exit_code == 2, "without photos and gallery nothing can be searched"
