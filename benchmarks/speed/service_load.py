"""A service in a process of its own, clients that ask it, and what it and the system tell of it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.serve.handshake import HEADER

TOKEN = "token-of-the-benchmark"
K = 10


@contextmanager
def served(index: GalleryIndex, threads: int) -> Iterator[tuple[int, int]]:
    """(port, process id) of a service in a process of its own."""
    command = [sys.executable, "-m", "edgecsd", "serve", str(index.path), "--port", "0", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [*command, "--token", TOKEN, "--rate", "0"], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        yield int(address["root"].rsplit(":", 1)[1]), process.pid
    finally:
        process.terminate()
        process.wait(30)


class Clients:
    """`count` threads with a connection each; a round is `requests` of them all together."""

    def __init__(self, port: int, count: int, queries: np.ndarray, fingerprint: str) -> None:
        self._queries = queries
        self._headers = {
            "authorization": f"Bearer {TOKEN}",
            HEADER: fingerprint,
            "content-type": "application/octet-stream; dtype=float32",
        }
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(count)]
        self.milliseconds: list[float] = []
        self.errors = 0

    def round(self, requests: int) -> float:
        """Seconds that the requests took."""
        for connection in self._connections:
            connection.close()  # the service may have closed it, after 20 s of rest; a request opens it again
        counts = [requests // len(self._connections)] * len(self._connections)
        threads = [
            threading.Thread(target=self._ask, args=(connection, number, count))
            for number, (connection, count) in enumerate(zip(self._connections, counts, strict=True))
        ]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun

    def _ask(self, connection: http.client.HTTPConnection, number: int, count: int) -> None:
        for turn in range(count):
            query = self._queries[(number * count + turn) % len(self._queries)]
            begun = time.perf_counter()
            connection.request("POST", f"/search?k={K}", body=query.tobytes(), headers=self._headers)
            answer = connection.getresponse()
            content = answer.read()
            self.milliseconds.append((time.perf_counter() - begun) * 1000)
            self.errors += answer.status != 200 or len(json.loads(content)["results"][0]) != K

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def batches_so_far(port: int) -> tuple[dict[int, int], int]:
    """({largest size of a bucket: calls of faiss}, vectors in all of them) since the service started."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    text = connection.getresponse().read().decode()
    connection.close()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    up_to = {
        int(float(sample.labels["le"])): int(sample.value)
        for sample in samples
        if sample.name == "edgecsd_batch_vectors_bucket" and sample.labels["le"] != "+Inf"
    }
    calls = dict(zip(up_to, np.diff([0, *up_to.values()]).tolist(), strict=True))
    return calls, round(sum(sample.value for sample in samples if sample.name == "edgecsd_batch_vectors_sum"))


def sizes_of(calls: dict[int, int], vectors: int) -> list[int]:
    """Sizes that so many calls a bucket had: the smallest of their bucket, and what then lacks, one each in turn."""
    bounds = sorted(calls)
    highest = [bound for bound in bounds for _ in range(calls[bound])]
    sizes = [low + 1 for low, bound in zip([0, *bounds], bounds, strict=False) for _ in range(calls[bound])]
    while (lacking := vectors - sum(sizes)) > 0:
        room = [place for place, size in enumerate(sizes) if size < highest[place]]
        for place in room[:lacking]:
            sizes[place] += 1
    return sizes


def resident_mb(process: int) -> float:
    """Resident memory of a process, in MB; NaN where the system does not tell."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return float("nan")
    return int(text.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def cpu_seconds(process: int) -> float:
    """CPU time that a process has taken, of all its threads; NaN where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
