"""The recipes of docs/ci: they parse, name options that exist, and their steps end with the exit codes they promise."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgecsd import cli
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.index.engines.faiss.building import build_index

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECIPES = ("github.yml", "gitlab.yml")
CHECK, STRICT, MATRIX = "edgecsd check", "--strict-decision", "edgecsd matrix"


def recipe(name: str) -> dict[Any, Any]:
    return dict(yaml.safe_load((DOCS / "ci" / name).read_text()))


def scripts(name: str) -> Iterator[str]:
    """Every step's shell text."""
    document = recipe(name)
    if name == "github.yml":
        for job in document["jobs"].values():
            yield from (step["run"] for step in job["steps"] if "run" in step)
        return
    for job in document.values():
        for key in ("before_script", "script"):
            yield from job.get(key, ()) if isinstance(job, dict) else ()


def variables(name: str) -> dict[str, str]:
    document = recipe(name)
    return dict(document["env" if name == "github.yml" else "variables"])


def commands(text: str) -> Iterator[list[str]]:
    """The words of every edgecsd command in a shell text."""
    for found in re.findall(r"edgecsd (?:[a-z-]+) [^;|{}\n]*", text.replace("\n  ", " ")):
        yield shlex.split(found.split(" > ")[0])


def step(name: str, *parts: str) -> str:
    """The one step that holds all these parts."""
    (found,) = {text for text in scripts(name) if all(part in text for part in parts)}
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_commands_and_options_that_exist(name: str) -> None:
    found = [words for text in scripts(name) for words in commands(text)]
    assert {words[1] for words in found} == {"check", "gate", "matrix"}
    for _, verb, *rest in found:
        options = {option for parameter in cli.load(verb).params for option in parameter.opts}
        given = {word for word in rest if word.startswith("-")}
        assert given <= options, f"{verb}: {given - options}"


def test_commands_of_the_page_exist() -> None:
    blocks = re.findall(r"```\n(.*?)```", (DOCS / "ci.md").read_text(), flags=re.DOTALL)
    found = [line.split() for block in blocks for line in block.splitlines() if line.startswith("edgecsd ")]
    assert found
    for _, verb, *rest in found:
        options = {option for parameter in cli.load(verb).params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= options


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_every_variable_that_it_uses(name: str) -> None:
    """PWD and PATH are the shell's, GITHUB_* and CI_* the service's."""
    used = {variable for text in scripts(name) for variable in re.findall(r"\$\{?([A-Z_]+)", text)}
    assert {each for each in used if not each.startswith(("GITHUB_", "CI_", "PWD", "PATH"))} == set(variables(name))


def test_evidence_is_kept_after_a_failure_and_undecided_does_not_stop_the_pipeline() -> None:
    steps = recipe("github.yml")["jobs"]["check"]["steps"]
    uploads = [each for each in steps if "upload-artifact" in each.get("uses", "")]
    assert all(each["if"] == "always()" for each in uploads) and "env.EVIDENCE" in uploads[0]["with"]["path"]
    strict = next(each for each in steps if STRICT in each.get("run", ""))
    assert strict["continue-on-error"] is True and "if" not in strict  # not after a failed check
    check = next(each for each in steps if CHECK in each.get("run", ""))
    assert "continue-on-error" not in check
    gitlab = recipe("gitlab.yml")
    job = gitlab["may-it-ship"]
    assert job["artifacts"]["when"] == "always" and "allow_failure" not in job
    assert f"{variables('gitlab.yml')['EVIDENCE']}/" in job["artifacts"]["paths"]
    assert gitlab["is-it-decided"]["allow_failure"] == {"exit_codes": [1]}
    assert set(gitlab["stages"]) == {
        each["stage"] for each in gitlab.values() if isinstance(each, dict) and "stage" in each
    }


# Their steps, run as the services run them: bash -e -o pipefail, in one folder.


class Project:
    """A folder with what the recipes' variables name."""

    def __init__(self, folder: Path, name: str, given: dict[str, Path | str]) -> None:
        self.folder, self.name, self.environment = folder, name, variables(name)
        for key, value in given.items():
            self.environment[key] = str(value)
        (folder / "thresholds.toml").write_text("[all]\nmin_overlap = 0.0\n")
        (folder / "bin").mkdir()
        starter = folder / "bin" / "edgecsd"
        starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgecsd "$@"\n')
        starter.chmod(0o755)

    def run(self, text: str, **changes: object) -> tuple[int, str]:
        """Exit code and both outputs of a step."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {
            **os.environ,
            **self.environment,
            **{name: str(value) for name, value in changes.items()},
            "PATH": path,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
        }
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def given(
    folder: Path, photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path | str]:
    exports = folder / "run" / "exports"
    coming = build_index(pixel_store, tmp_path_factory.mktemp("ci") / "coming.index", type="hnsw")
    return {
        "FILE": exports / "model-fp32.onnx",
        "EARLIER": exports / "model-fp16.onnx",
        "INDEX": folder / "gallery.index",
        "COMING": coming.path,
        "PHOTOS": photos,
        "REFERENCE": pixel_store.path,
    }


@pytest.fixture(scope="module")
def projects(given: dict[str, Path | str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    """A project a recipe, in which the check step, which is the same text in both, has run."""
    made = {name: Project(tmp_path_factory.mktemp("project"), name, given) for name in RECIPES}
    one, other = made.values()
    assert step(one.name, CHECK).split() == step(other.name, CHECK).split()
    code, said = one.run(step(one.name, CHECK))
    assert code == 0, said
    shutil.copytree(one.folder / "evidence", other.folder / "evidence")
    overlap = json.loads((one.folder / "verdict.json").read_text())["figures"]["overlap"]
    for project in made.values():
        (project.folder / "edge.toml").write_text(f"[all]\nmin_overlap = {overlap}\n")  # 24 photos cannot decide that
        (project.folder / "hard.toml").write_text("[all]\nmin_overlap = 1.0\n")
    return made


def test_the_check_leaves_what_the_recipes_keep(projects: dict[str, Project]) -> None:
    project = projects["github.yml"]
    verdict = json.loads((project.folder / "verdict.json").read_text())
    assert verdict["verdict"] == "passed" and Path(verdict["evidence"]).name == "evidence"
    assert {path.name for path in (project.folder / "evidence").iterdir()} >= {"evidence.json", "check.html"}
    assert "<testsuites" in (project.folder / "gates.xml").read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_undecided_may_ship_and_the_second_job_says_so(projects: dict[str, Project], name: str) -> None:
    project, text = projects[name], step(name, STRICT)
    code, said = project.run(text)
    assert code == 0, said
    assert project.run(text.replace(STRICT, ""), THRESHOLDS="edge.toml")[0] == 0
    code, said = project.run(text, THRESHOLDS="edge.toml")
    assert code == 1 and "FAIL: not all decided" in said
    assert name != "github.yml" or "::warning title=edgecsd::FAIL: not all decided" in said


@pytest.mark.parametrize("name", RECIPES)
def test_a_failed_gate_ends_the_step_with_1(projects: dict[str, Project], name: str) -> None:
    """A threshold that nothing meets, on the saved evidence."""
    code, said = projects[name].run(step(name, STRICT), THRESHOLDS="hard.toml")
    assert code == 1 and "FAIL: must not ship" in said


def test_the_summary_of_github_shows_the_verdict(projects: dict[str, Project]) -> None:
    project, text = projects["github.yml"], step("github.yml", "GITHUB_STEP_SUMMARY")
    for thresholds, verdict in (("edge.toml", "PASS, not all decided"), ("hard.toml", "FAIL: must not ship")):
        (project.folder / "summary.md").unlink(missing_ok=True)
        code, said = project.run(text, THRESHOLDS=thresholds)
        assert code == 0, said
        summary = (project.folder / "summary.md").read_text()
        assert summary.startswith("```\n") and summary.endswith("```\n") and verdict in summary
    assert project.run(text, EVIDENCE="nothing")[0] == 0


@pytest.mark.slow
def test_a_foreign_index_ends_the_check_with_3_and_a_wrong_path_with_2(
    projects: dict[str, Project], tmp_path: Path
) -> None:
    project = projects["gitlab.yml"]
    stored = FeatureStore.open(Path(project.environment["REFERENCE"]))
    other = EmbeddingSpace(gallery_model="another-v2", dim=stored.space.dim)
    vectors = stored.vectors() / np.linalg.norm(stored.vectors(), axis=1, keepdims=True)  # it holds float16
    foreign = write_store(tmp_path / "s", other, Items(stored.items.ids, stored.items.digests), vectors)
    build_index(foreign, tmp_path / "foreign.index")
    code, said = project.run(step(project.name, CHECK), INDEX=tmp_path / "foreign.index", EVIDENCE="new")
    assert code == 3 and "another-v2" in said and not (project.folder / "new").exists()
    code, said = project.run(step(project.name, CHECK), THRESHOLDS="absent.toml", EVIDENCE="new")
    assert code == 2 and "absent.toml" in said


def test_the_matrix_before_an_index_release(given: dict[str, Path | str], tmp_path: Path) -> None:
    steps = [step(name, MATRIX) for name in RECIPES]
    assert steps[0].split() == steps[1].split()
    code, said = Project(tmp_path, "gitlab.yml", given).run(steps[1])
    assert code == 0, said
    document = json.loads((tmp_path / "matrix.json").read_text())
    assert len(document["pairings"]) == 4 and all(each["compatible"] for each in document["pairings"])
