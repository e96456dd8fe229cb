"""Files that are served from memory: read and compressed before the first request, looked up by their whole path."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
UNCHANGING, CHECKED = "private, max-age=31536000, immutable", "private, no-cache"


@dataclass(frozen=True)
class MemoryFile:
    """content as it is; compressed: by gzip, or None where that saves nothing; headers: more of them."""

    content: bytes = field(repr=False)
    media_type: str
    compressed: bytes | None = field(repr=False, default=None)
    headers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def read(path: Path, headers: Mapping[str, str] | None = None) -> MemoryFile:
        """A file, and its gzip form from FILE.gz if that is there."""
        twin = path.with_name(f"{path.name}.gz")
        compressed = twin.read_bytes() if twin.is_file() else None
        return MemoryFile(path.read_bytes(), media_type_of(path.name), compressed, headers or {})

    @staticmethod
    def of_text(name: str, text: str, headers: Mapping[str, str] | None = None) -> MemoryFile:
        """A text with the media type of `name`, compressed."""
        content = text.encode()
        return MemoryFile(content, media_type_of(name), gzip.compress(content, 9, mtime=0), headers or {})

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def response(self, request: Request, cache: str = CHECKED) -> Response:
        """The file, compressed for those who take that; 304 to those who have it."""
        squeezed = self.compressed is not None and "gzip" in request.headers.get("accept-encoding", "")
        tag = f'"{self.sha256[:32]}{"-gzip" if squeezed else ""}"'
        headers = {"etag": tag, "cache-control": cache, "vary": "accept-encoding", **self.headers}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if squeezed:
            headers["content-encoding"] = "gzip"
        return Response(self.compressed if squeezed else self.content, headers=headers, media_type=self.media_type)


def media_type_of(name: str) -> str:
    """By the file's ending."""
    return MEDIA_TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
