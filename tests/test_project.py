"""Promises of the repository as a whole."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Written in two halves, or this file would be the first to break its own rule.
FORBIDDEN = ["/wo" + "rk/", "python" + "hosted", "npm" + "js", "py" + "pi.org", "/ro" + "ot/", "proxy.go" + "lang"]


def project_files() -> list[Path]:
    """What git tracks, and what it would track: everything that is not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return sorted({ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()})


def test_every_module_starts_with_a_sentence() -> None:
    files = [p for p in (ROOT / "edgecsd").rglob("*.py") if p.read_text().strip()]
    assert [p.name for p in files if not re.match(r'(#!.*\n)?"""\S', p.read_text())] == []


def test_nothing_names_a_machine_or_a_registry_host() -> None:
    found = []
    for file in project_files():
        text = file.read_bytes().decode("utf-8", "replace")
        found += [f"{file.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text]
    assert found == []


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for file in project_files():
        if file.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", file.read_text()):
            if "://" not in target and not (file.parent / target).exists():
                broken.append(f"{file.relative_to(ROOT)}: {target}")
    assert broken == []


def test_constraints_cover_the_direct_requirements() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    wanted = {re.split(r"[\[<>=!~ ]", line)[0] for text in lists for line in text.split("\n") if line} - {"edgecsd"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if line and not line.startswith("#")}
    assert {name for name in wanted if name.lower() not in pinned} == set()
