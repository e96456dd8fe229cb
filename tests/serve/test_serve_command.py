"""edgecsd serve in a real process: what it prints, how it stops, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import client, random_index, unit

from edgecsd.index import GalleryIndex


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> GalleryIndex:
    return random_index(tmp_path_factory.mktemp("command"), rows=60, type="hnsw", ef_search=20)


def command(index: GalleryIndex, *options: object) -> list[str]:
    return [sys.executable, "-m", "edgecsd", "serve", str(index.path), "--port", "0", *map(str, options)]


@contextmanager
def started(index: GalleryIndex, *options: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(index, "--json", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_with_exit_code_0(index: GalleryIndex, number: signal.Signals) -> None:
    with started(index, "--token", "given-token") as (process, address):
        assert address["token"] == "given-token" and address["gallery"] == 60
        with client(address["root"], index.space.fingerprint, "given-token") as http:
            query = unit(1, seed=4)
            answer = http.post("/search", json={"embedding": query[0].tolist(), "k": 5})
            assert [item["row"] for item in answer.json()["results"][0]] == index.search(query, 5)[1][0].tolist()
            assert http.get("/docs").headers["content-type"].startswith("text/html")
            assert http.get("/about").status_code == 404
        process.send_signal(number)
        printed, told = process.communicate(timeout=20)
        assert process.returncode == 0, told
        assert printed == "" and "Traceback" not in told


def test_tokens_are_random_unless_given(index: GalleryIndex) -> None:
    with started(index) as (_, one), started(index) as (_, other):
        assert one["token"] != other["token"] and len(one["token"]) >= 16
        assert one["url"] == one["root"]  # without a page there is nothing to open


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH")
def test_tls_by_a_certificate_made_on_the_fly(index: GalleryIndex) -> None:
    with started(index, "--tls") as (_, address):
        assert address["root"].startswith("https://127.0.0.1:")
        port = int(address["root"].rsplit(":", 1)[1])
        context = ssl.create_default_context(cadata=ssl.get_server_certificate(("127.0.0.1", port)))
        with httpx.Client(verify=context, trust_env=False) as http:  # the address stands in the certificate
            assert http.get(f"{address['root']}/health").json() == {"status": "ok"}


def refused(index: GalleryIndex, *options: object) -> tuple[int, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(index, *options), capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_what_cannot_be_served_is_refused(index: GalleryIndex, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = refused(index, "--port", taken.getsockname()[1])
        assert code == 2 and "cannot listen there" in text
    code, text = refused(index, "--token", "short")
    assert code == 2 and "--token: 8 to 200 letters" in text
    code, text = refused(index, "--photos", tmp_path)
    assert code == 2 and "give the query model with --model FILE" in text
    code, text = refused(index, "--cert", tmp_path / "cert.pem")
    assert code == 2 and "--cert and --key belong together" in text
    code, text = refused(index, "--model", tmp_path / "model.mlpackage")
    assert code == 2 and "no browser runs Core ML" in text
    code, text = refused(index, "--rate", "-1")
    assert code == 2 and "--rate -1.0" in text
