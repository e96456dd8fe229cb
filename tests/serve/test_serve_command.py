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

from edgecsd.errors import BadInputError
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.serve.server import listen, serve


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


def test_a_refusal_is_one_line_and_its_exit_code(index: GalleryIndex) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(index, "--token", "short"), capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("edgecsd: error: --token: 8 to 200 letters") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"photos": Path("photos")}, "give the query model with `model` FILE"),
        ({"out": Path("b.jsonl")}, "give the query model with `model` FILE"),
        ({"cert": Path("cert.pem")}, "`cert` and `key` belong together"),
        ({"cert": Path("no-cert.pem"), "key": Path("no-key.pem")}, "no-cert.pem: no such file"),
        ({"model": Path("model.mlpackage")}, "no browser runs Core ML"),
        ({"model": Path("model.ort")}, r"give the \.onnx that it was made from"),
        ({"model": Path("missing.onnx")}, "no such artifact"),
        ({"rate": -1.0}, "`rate` -1.0"),
        ({"token": "a token with blanks"}, "`token`: 8 to 200 letters"),
    ],
)
def test_what_cannot_be_served_is_refused(index: GalleryIndex, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        serve(index.path, announce=lambda address: pytest.fail(f"it serves at {address.root}"), port=0, **options)


def test_a_port_that_is_taken_is_told(index: GalleryIndex) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInputError, match=f"`port` {port}: cannot listen there"):
            serve(index.path, announce=lambda address: pytest.fail("it serves"), port=port)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
