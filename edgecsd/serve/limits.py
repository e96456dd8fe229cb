"""How much one client may ask for (sizes, rates, times), and the one JSON body of every refusal."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from edgecsd.errors import BadInputError

JSON_NUMBER_BYTES = 32  # of one number of a JSON body, with its comma and blanks: doubles have at most 24 characters
# Of a body that is too large: read and thrown away, since who still sends does not read the refusal.
DISCARDED_BYTES = 20_000_000
REPORT_BYTES = 2_000_000  # of a benchmark's report: 5,000 times and a dozen embeddings are below 1 MB
CLIENTS_REMEMBERED = 10_000  # by the rate limiter; those that were idle longest are forgotten first


@dataclass(frozen=True)
class Limits:
    """rate: requests a second of one client address, in the mean, 0 for any; burst: how many may come at once."""

    rate: float = 50.0
    burst: float = 200.0
    vectors: int = 64  # in one request
    k: int = 100  # results a query
    waiting: int = 1024  # vectors that wait for faiss; above it the service is busy
    body_seconds: float = 10.0  # for a body to arrive
    reports: int = 1000  # benchmark reports taken in one run of the server

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1e6:
            raise BadInputError(f"`rate` {self.rate}: give the requests a second of one client, or 0 for any number")

    def search_bytes(self, dim: int) -> int:
        """The largest body of a search, in JSON."""
        return 256 + self.vectors * (dim * JSON_NUMBER_BYTES + 8)


class RateLimiter:
    """A bucket of `burst` tokens for each client, filled with `rate` tokens a second."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, when that was

    def take(self, client: str) -> float:
        """Seconds that this client must wait; 0.0 if the request may go on."""
        if not self._rate:
            return 0.0
        now = self._clock()
        tokens, before = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._rate)
        waits = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[client] = (tokens - 1 if tokens >= 1 else tokens), now
        if len(self._buckets) > CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return waits


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The whole body, of at most `limit` bytes, that arrives within `seconds`; else 413, 415 or 408."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "encoded body", "the body has a content-encoding", "send it as it is")
    stated = request.headers.get("content-length", "0")
    keep = not (stated.isdecimal() and int(stated[:20]) > limit)
    body, read = bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                read += len(piece)
                keep = keep and read <= limit
                if keep:
                    body += piece
                elif read > DISCARDED_BYTES:
                    break
    except TimeoutError:
        raise Refusal(408, "too slow", f"the body did not arrive within {seconds:g} s", "try again") from None
    except ClientDisconnect:
        raise Refusal(400, "gone", "the connection ended before the body did", "try again") from None
    if not keep:
        what_to_do = "send fewer vectors in one request; float16 takes the least room"
        raise Refusal(413, "too large", f"the body has more than {limit} bytes", what_to_do)
    return bytes(body)


class Refusal(Exception):
    """A request that is not answered. error: its kind, message: what was wrong, what_to_do: what helps."""

    def __init__(
        self, status: int, error: str, message: str, what_to_do: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.error, self.message, self.what_to_do = status, error, message, what_to_do
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"error": self.error, "message": self.message, "what_to_do": self.what_to_do}
