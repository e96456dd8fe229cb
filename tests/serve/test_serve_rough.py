"""Requests that no well-behaved client sends, byte by byte over a socket: refused, and nothing is left behind."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest
from serving import TOKEN, random_index, running, unit

from edgecsd.serve import guard as slow_headers
from edgecsd.serve.application import Service
from edgecsd.serve.handshake import HEADER
from edgecsd.serve.limits import Limits

HEAD = b"Host: x\r\nConnection: close\r\n"
KEY = f"Authorization: Bearer {TOKEN}\r\n".encode()
PIECES = b"Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n"
LENGTHS = b"Content-Type: application/octet-stream\r\nContent-Length: 64\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service(random_index(tmp_path_factory.mktemp("rough"), rows=40), None, Limits(rate=0))


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with running(service) as root:
        yield int(root.rsplit(":", 1)[1])


def send(port: int, data: bytes) -> tuple[int, bytes]:
    """Status and body of what the server answers before it ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def left_in_flight(service: Service) -> int:
    """Requests that are not done after a while: the server's thread counts a moment after the answer has come."""
    end = time.monotonic() + 5
    while (left := counted(service, "edgecsd_in_flight_requests")) and time.monotonic() < end:
        time.sleep(0.005)
    return int(left)


def counted(service: Service, name: str, **labels: str) -> float:
    return service.metrics.registry.get_sample_value(name, labels) or 0.0


def statuses(service: Service) -> set[int]:
    """Of all answers so far."""
    samples = [s for metric in service.metrics.registry.collect() for s in metric.samples]
    return {int(s.labels["status"]) for s in samples if s.name == "edgecsd_requests_total"}


REFUSED = {
    "a star for the path": (401, b"OPTIONS * HTTP/1.1\r\n" + HEAD),
    "a star, with the token": (404, b"OPTIONS * HTTP/1.1\r\n" + HEAD + KEY),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n" + HEAD),
    "a row of 6,000 digits": (404, b"GET /photos/" + b"9" * 6000 + b" HTTP/1.1\r\n" + HEAD + KEY),
    "a golden photo of 6,000 digits": (404, b"GET /golden/" + b"9" * 6000 + b" HTTP/1.1\r\n" + HEAD + KEY),
    "digits of another script": (404, b"GET /photos/%D9%A3 HTTP/1.1\r\n" + HEAD + KEY),
    "bytes that are no text": (404, b"GET /%ff%fe%00 HTTP/1.1\r\n" + HEAD + KEY),
    "another host's address": (401, b"GET http://elsewhere/metrics HTTP/1.1\r\n" + HEAD),
    "no method that there is": (405, b"TRACE /bench HTTP/1.1\r\n" + HEAD + KEY),
    "a token that is no text": (401, b"GET /metrics HTTP/1.1\r\n" + HEAD + b"Authorization: Bearer \xff\xfe\r\n"),
    "a broken cookie": (401, b'GET /metrics HTTP/1.1\r\nCookie: \x80=;;;="\\\r\n' + HEAD),
    "a token of half a character": (401, b"GET /?token=%ed%a0%80 HTTP/1.1\r\n" + HEAD),
    "a negative length": (400, b"POST /search HTTP/1.1\r\nContent-Length: -5\r\n" + HEAD + KEY),
    "two lengths": (400, b"POST /search HTTP/1.1\r\nContent-Length: 65\r\n" + LENGTHS + HEAD + KEY),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused(port: int, service: Service, case: str) -> None:
    status, request = REFUSED[case]
    found = send(port, request + b"\r\n")[0]
    assert found == status or (case == "HTTP/2" and found == 401)  # by httptools and by h11, which reads it as HTTP/1
    assert left_in_flight(service) == 0
    assert max(statuses(service)) < 500


def test_a_body_in_pieces_is_put_together(port: int, service: Service) -> None:
    query, space = unit(1, seed=9), service.index.space
    head = b"POST /search?k=1 HTTP/1.1\r\n" + HEAD + KEY + f"{HEADER}: {space.fingerprint}\r\n".encode() + PIECES
    content = query.astype(np.float32).tobytes()
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:7], content[7:]))
    status, body = send(port, head + b"\r\n" + pieces + b"0\r\n\r\n")
    (row,) = service.index.search(query, 1)[1][0].tolist()
    assert status == 200 and f'"row": {row},'.encode() in body
    assert send(port, head + b"\r\nZZ\r\nno number\r\n")[0] == 400


def test_a_client_that_goes_away_leaves_nothing_behind(port: int, service: Service) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: x\r\n" + KEY + f"{HEADER}: {service.index.space.fingerprint}\r\n".encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head + LENGTHS + b"\r\nhalf of")
    assert send(port, b"GET /health HTTP/1.1\r\n" + HEAD + b"\r\n")[0] == 200
    assert left_in_flight(service) == 0
    assert max(statuses(service)) < 500


def test_headers_a_byte_at_a_time_are_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_headers, "HEADER_SECONDS", 0.5)
    begun, answer = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as connection:
        for byte in b"GET /health HTTP/1.1\r\n" + b"X-Slow: " + b"a" * 400:
            try:
                connection.sendall(bytes([byte]))
                if piece := connection.recv(1000):
                    answer += piece
                    continue
                break
            except TimeoutError:
                continue
            except OSError:
                break
    assert answer.startswith(b"HTTP/1.1 408") and time.monotonic() - begun < 5


def test_a_slow_second_request_on_a_kept_connection_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_headers, "HEADER_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.8)  # longer than the limit: an idle connection is not a slow one
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /hea")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert connection.recv(1000) == b""
