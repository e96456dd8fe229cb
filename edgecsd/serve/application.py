"""The service as an ASGI application: search, the phone's page, health, metrics, the description of all that."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgecsd.errors import ImageReadError, validation_text
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.serve.batching import Batcher
from edgecsd.serve.guard import Guard
from edgecsd.serve.handshake import QueryVectorError, SpaceHandshake, SpaceMismatchError
from edgecsd.serve.limits import REPORT_BYTES, Limits, RateLimiter, Refusal, read_body
from edgecsd.serve.memory_files import UNCHANGING, MemoryFile
from edgecsd.serve.metrics import CONTENT_TYPE, Metrics
from edgecsd.serve.openapi import description
from edgecsd.serve.phone import PhonePage, page_files
from edgecsd.serve.queries import JSON, parse_query, raw_codes
from edgecsd.serve.reports import PhoneReport, describe
from edgecsd.serve.wire import Codebook

LONG_LIVED = ("/runtime/", "/model/")  # their names or the page's version change with their contents
ROUTES = frozenset(
    {
        "/",
        "/search",
        "/photos",
        "/golden",
        "/bench",
        "/about",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/static",
        "/runtime",
        "/model",
        "/runner",
        "/service-worker.js",
        "/app.webmanifest",
    }
)


@dataclass
class Service:
    """What the handlers work with; `announce` takes a line for the terminal."""

    index: GalleryIndex
    page: PhonePage | None
    limits: Limits
    announce: Callable[[str], None] = lambda text: None
    codebook: Codebook | None = None
    ready: bool = False
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.fingerprint = self.index.space.fingerprint  # a digest, which each answer would compute anew
        self.metrics = Metrics(len(self.index.ids))
        self.batcher = Batcher(
            self.index.search, waiting=self.limits.waiting, observe=self.metrics.batch_vectors.observe
        )
        self.files = self.page.files if self.page else {k: f for k, f in page_files().items() if "docs" in k}
        self.openapi = json.dumps(
            description(self.index, self.limits, raw_codes(self.codebook), phone=self.page is not None)
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.batcher.start()
        self.ready = True
        yield
        self.ready = False
        await self.batcher.close()

    async def search(self, request: Request) -> Response:
        """POST /search: embeddings in, the gallery's best items out."""
        space = self.index.space
        with self.batcher.coming():
            body = await read_body(request, self.limits.search_bytes(space.dim), self.limits.body_seconds)
            content_type, k = request.headers.get("content-type", ""), request.query_params.get("k")
            query = parse_query(body, content_type, k, space, self.limits, self.codebook)
        started = time.perf_counter()
        scores, rows = await self.batcher.search(query.vectors, query.k)
        self.metrics.search_seconds.observe(time.perf_counter() - started)
        found = zip(scores.tolist(), rows.tolist(), strict=True)
        results = [[self._item(row, score) for score, row in zip(*pair, strict=True) if row >= 0] for pair in found]
        return _json({"space": self.fingerprint, "results": results})

    def _item(self, row: int, score: float) -> dict[str, Any]:
        item = {"row": row, "id": self.index.ids[row], "score": round(score, 7)}
        shown = self.page is not None and self.page.thumbnails is not None and row in self.page.thumbnails
        return {**item, "photo": f"/photos/{row}"} if shown else item

    async def photo(self, request: Request) -> Response:
        """GET /photos/ROW: a thumbnail."""
        row = _number(request)
        if self.page is None or self.page.thumbnails is None or row not in self.page.thumbnails:
            raise _absent(f"there is no photo of row {row}")
        try:
            content = await run_in_threadpool(self.page.thumbnails.jpeg, row)
        except ImageReadError:
            raise _absent(f"the photo of row {row} cannot be read any more") from None
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    async def golden(self, request: Request) -> Response:
        """GET /golden/N: a photo whose embedding the host knows."""
        number = _number(request)
        if self.page is None or number >= len(self.page.golden.files):
            raise _absent(f"there is no golden photo {number}")
        return self.page.golden.files[number].response(request)

    async def bench(self, request: Request) -> Response:
        """POST /bench: what the phone measured; the answer is the row that it became."""
        if self.page is None:
            raise _absent("this service has no phone page")
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != JSON:
            raise Refusal(415, "content type", "the report is no JSON", f"send it as {JSON}")
        body = await read_body(request, REPORT_BYTES, self.limits.body_seconds)
        try:
            report = PhoneReport.model_validate_json(body)
        except ValidationError as error:
            message, what_to_do = validation_text(error)[:300], "reload the page: it may be of an earlier server"
            raise Refusal(400, "malformed report", message, what_to_do) from None
        async with self.reporting:
            if len(self.page.reports.rows) >= self.limits.reports:
                message = f"{self.limits.reports} reports were taken"
                raise Refusal(429, "too many reports", message, "start the server again to take more")
            row = await run_in_threadpool(self.page.reports.add, report)
        self.announce(describe(row))
        return _json(row.model_dump(mode="json", exclude={"repeats"}))

    async def about(self, _: Request) -> Response:
        """GET /about: the model, the gallery and the files of the page."""
        if self.page is None:
            raise _absent("this service has no phone page: serve it with a model FILE")
        return _json(self.page.about)

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def readiness(self, _: Request) -> Response:
        if not self.ready:
            raise Refusal(503, "not ready", "the service is starting or stopping", "try again", {"retry-after": "1"})
        return _json({"status": "ready", "gallery": len(self.index.ids)})

    async def show_metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def show_openapi(self, _: Request) -> Response:
        return Response(self.openapi, media_type=JSON)

    async def file(self, request: Request) -> Response:
        """GET of everything else: files in memory, by their whole path."""
        path = request.url.path
        found: MemoryFile | None = self.files.get(path)
        if found is None:
            raise _absent(f"there is nothing at {path[:80]}")
        return found.response(request, UNCHANGING) if path.startswith(LONG_LIVED) else found.response(request)


def make_application(service: Service, token: str, *, secure: bool) -> ASGIApp:
    """The whole application: guard, handshake, routes."""
    routes = [
        Route("/search", service.search, methods=["POST"]),
        Route("/photos/{number}", service.photo),
        Route("/golden/{number}", service.golden),
        Route("/bench", service.bench, methods=["POST"]),
        Route("/about", service.about),
        Route("/health", service.health),
        Route("/ready", service.readiness),
        Route("/metrics", service.show_metrics),
        Route("/openapi.json", service.show_openapi),
        Route("/{path:path}", service.file),
    ]
    handlers: Any = {
        Refusal: _refused,
        SpaceMismatchError: _mismatched,
        QueryVectorError: _mismatched,
        HTTPException: _http_problem,
        Exception: _internal,
    }
    handshake = Middleware(SpaceHandshake, fingerprint=service.index.space.fingerprint, paths=("/search",))
    inner = Starlette(routes=routes, exception_handlers=handlers, middleware=[handshake], lifespan=service.lifespan)
    limiter = RateLimiter(service.limits.rate, service.limits.burst)
    return Guard(inner, token=token, limiter=limiter, metrics=service.metrics, routes=ROUTES, secure=secure)


def _json(document: Any) -> Response:
    return Response(json.dumps(document, allow_nan=False), media_type=JSON)


def _number(request: Request) -> int:
    """The number in the path. Starlette's own conversion fails at numbers that are longer than Python takes."""
    text = str(request.path_params["number"])
    if not (text.isascii() and text.isdecimal() and len(text) < 9):
        raise _absent(f"{text:.30} is no number that there is")
    return int(text)


def _absent(message: str) -> Refusal:
    return Refusal(404, "not found", message, "see /docs for what there is")


async def _refused(_: Request, error: Refusal) -> Response:
    return JSONResponse(error.body, error.status, error.headers)


async def _mismatched(_: Request, error: SpaceMismatchError | QueryVectorError) -> Response:
    return JSONResponse(error.body, error.status)


async def _http_problem(_: Request, error: HTTPException) -> Response:
    refusal = Refusal(error.status_code, error.detail.lower(), error.detail, "see /docs for what there is")
    return JSONResponse(refusal.body, error.status_code, error.headers)


async def _internal(_: Request, error: Exception) -> Response:
    refusal = Refusal(500, "internal error", f"a bug of the service: {type(error).__name__}", "report it to its owner")
    return JSONResponse(refusal.body, 500)
