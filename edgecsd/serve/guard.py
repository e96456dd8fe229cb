"""The door of the service: counts requests, limits rates and slow headers, asks for the token, adds security headers.

Who sends headers a byte a minute would hold a connection for ever (slowloris): they have a time limit.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import json
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from edgecsd.serve.limits import RateLimiter, Refusal
from edgecsd.serve.metrics import Metrics

OPEN = ("/health", "/ready")  # for load balancers, which have no token
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-embedder-policy": "require-corp",  # with the next: threads in WebAssembly, and exact clocks
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around the whole application.

    routes  the paths that there are, up to their second slash ("/photos"): labels of the metrics; others are "other"
    secure  whether the connection is TLS, so that the cookie may say so
    """

    def __init__(
        self, app: ASGIApp, *, token: str, limiter: RateLimiter, metrics: Metrics, routes: frozenset[str], secure: bool
    ) -> None:
        self._app, self._token, self._limiter, self._metrics = app, token, limiter, metrics
        self._routes, self._secure = routes, secure
        self._cookie = f"edgecsd-{hashlib.sha256(token.encode()).hexdigest()[:8]}"  # two servers on a host: two cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._metrics.in_flight.inc()
        route = "/" + str(scope["path"]).removeprefix("/").split("/")[0]  # of OPTIONS the path may be "*"
        label = route if route in self._routes else "other"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(label, message["status"]).inc()
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._limit(scope)
            if not await self._enter(scope, send_with_headers):
                await self._app(scope, receive, send_with_headers)
        except Refusal as refusal:
            await refuse(send_with_headers, refusal, as_page="text/html" in Headers(scope=scope).get("accept", ""))
        finally:
            self._metrics.in_flight.dec()

    def _limit(self, scope: Scope) -> None:
        client = scope.get("client")
        seconds = self._limiter.take(client[0] if client else "unknown")
        if seconds:
            message, what_to_do = "too many requests from this address", f"wait {seconds:.2f} s, then try again"
            raise Refusal(429, "too many requests", message, what_to_do, {"retry-after": str(int(seconds) + 1)})

    async def _enter(self, scope: Scope, send: Send) -> bool:
        """Raise Refusal without the token; exchange the one of the first address for a cookie (True: answered)."""
        if scope["path"] in OPEN:
            return False
        if scope["path"] == "/" and (given := parse_qs(scope["query_string"].decode("latin-1")).get("token")):
            self._require(given[0])
            secure = "; Secure" if self._secure else ""
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000{secure}"
            await respond(send, 303, b"", {"location": "/", "set-cookie": cookie})
            return True
        self._require(self._given(Headers(scope=scope)))
        return False

    def _given(self, headers: Headers) -> str:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return bearer.strip()
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return cookie.value if cookie else ""

    def _require(self, given: str) -> None:
        if hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            return
        message = "this address needs the token of the server that runs now"
        what_to_do = "scan the code in the server's terminal again, or send the header Authorization: Bearer TOKEN"
        raise Refusal(401, "no token", message, what_to_do, {"www-authenticate": "Bearer"})


async def refuse(send: Send, refusal: Refusal, *, as_page: bool) -> None:
    """The refusal as JSON, or as a page for somebody who opened the address in a browser."""
    if not as_page:
        headers = {"content-type": "application/json", **refusal.headers}
        await respond(send, refusal.status, json.dumps(refusal.body).encode(), headers)
        return
    title, text = html.escape(refusal.message), html.escape(refusal.what_to_do)
    viewport = '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
    page = (
        f'<!doctype html><html lang="en"><title>{refusal.status}</title>{viewport}<h1>{title}</h1><p>{text}</p></html>'
    )
    headers = {"content-type": "text/html; charset=utf-8", **refusal.headers}
    await respond(send, refusal.status, page.encode(), headers)


async def respond(send: Send, status: int, content: bytes, headers: dict[str, str]) -> None:
    """One whole response."""
    given = {"content-length": str(len(content)), **headers}
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})


HEADER_SECONDS = 10.0  # from the connection, or from a later request's first byte, to the end of its headers
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_Base: Any = AutoHTTPProtocol


class TimedProtocol(_Base):  # type: ignore[misc]
    """uvicorn's protocol, which has a limit for idle connections and none for slow headers."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the headers are whole, a handler runs
            self._disarm()
        elif self._timer is None:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._give_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.write(TOO_SLOW)
            self.transport.close()
