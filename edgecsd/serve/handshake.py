"""The handshake at run time, for the team's own server: a plain function each for fingerprint and vectors, and an ASGI
middleware that refuses requests of apps whose query model lives in another embedding space. Standard library and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.space import EmbeddingSpace

HEADER = "x-edgecsd-space"
NORM_TOLERANCE = 1e-2  # of 1: fp16 and 8-bit tails stay within 2e-3, a vector that was not normalised is far off
CONFLICT, POLICY_VIOLATION = 409, 1008  # HTTP status, and the WebSocket close code where no status can be sent
DENIAL = "websocket.http.response"  # the ASGI extension by which a WebSocket is refused with a status and a body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class SpaceMismatchError(IncompatibleError):
    """A query of another embedding space. body: what was wrong, ready for JSON; status: the HTTP status for it."""

    status = CONFLICT

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(f"{body['message']}. What to do: {body['what_to_do']}")
        self.body = body


class QueryVectorError(BadInputError):
    """A query vector that cannot be searched. body: what was wrong, ready for JSON; status: the HTTP status for it."""

    status = 422

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(f"{body['message']}. What to do: {body['what_to_do']}")
        self.body = body


def require_fingerprint(given: str | None, expected: str) -> None:
    """Raise SpaceMismatchError (IncompatibleError) unless the app names the embedding space of the index.

    given     what the app sent: the `fingerprint` in its artifact's metadata; None where it sent nothing
    expected  the fingerprint of the gallery index that would be searched
    """
    if given == expected:
        return
    if not given:
        message = "the request does not say which embedding space its query lives in"
        what_to_do = f"send the fingerprint in the app's model file (metadata key 'edgecsd') in the header {HEADER}"
    else:
        message = f"the query lives in the embedding space {given}, the gallery in {expected}"
        what_to_do = (
            "update the app to a model distilled for this gallery, or send its queries to the index that its model was "
            "made for"
        )
    raise SpaceMismatchError(
        {
            "error": "incompatible embedding space",
            "expected": expected,
            "given": given or None,
            "message": message,
            "what_to_do": what_to_do,
        }
    )


def require_query(vectors: NDArray[Any], space: EmbeddingSpace, *, normalised: bool = True) -> NDArray[np.float32]:
    """(dim,) or (Q, dim) query vectors as (Q, dim) float32, or an error that names the first wrong one.

    Raises SpaceMismatchError for another dimension; QueryVectorError (BadInputError) for what is no array of numbers,
    is not finite, is zero, or, unless `normalised` is False, has another length than 1.
    """
    try:
        array = np.atleast_2d(np.asarray(vectors, np.float32))
    except (TypeError, ValueError) as error:
        raise _unusable("not an array of numbers", str(error), "send (dim,) or (Q, dim) numbers", None) from None
    if array.ndim != 2 or array.shape[1] != space.dim:
        raise SpaceMismatchError(
            {
                "error": "incompatible dimension",
                "expected": space.dim,
                "given": list(array.shape),
                "message": f"query vectors of shape {tuple(array.shape)}, the gallery's have {space.dim} numbers",
                "what_to_do": "the app's model was made for another gallery: update it, or use the index of its own",
            }
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        advice = "the app's model gave NaN or infinity: run edgecsd check on its file, on that device's precision"
        raise _unusable("not finite", "it has NaN or infinity", advice, int(np.flatnonzero(~finite)[0]))
    norms = np.linalg.norm(array, axis=1)
    wrong = np.abs(norms - 1) > NORM_TOLERANCE if normalised else norms == 0
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = f"its length is {norms[row]:.4g}, not 1"
        if norms[row] == 0:
            advice = "all zeros: fp16 overflow in the app's model, or an output that was never filled"
        else:
            advice = "send the model file's output as it is; if it is not normalised, divide it by its length"
        raise _unusable("zero" if norms[row] == 0 else "not of unit length", found, advice, row)
    return array


def _unusable(error: str, found: str, what_to_do: str, row: int | None) -> QueryVectorError:
    which = "the query vector" if row is None else f"query vector {row}"
    body = {"error": f"query vector {error}", "row": row, "message": f"{which} cannot be searched: {found}"}
    return QueryVectorError({**body, "what_to_do": what_to_do})


class SpaceHandshake:
    """ASGI middleware: a request whose header does not name the index's embedding space is refused with HTTP 409.

    paths   what is guarded: these paths and everything below them; ("/",) guards all
    exempt  of those, what is not guarded, each with everything below it (a health check)

    Other requests pass untouched, as do OPTIONS (a browser's preflight can carry no such header) and lifespan events.
    WebSockets are guarded alike: refused with 409 where the server can, else closed with code 1008. The JSON body says
    what was expected, what was given and what to do.
    """

    def __init__(
        self,
        app: Application,
        fingerprint: str,
        header: str = HEADER,
        paths: Sequence[str] = ("/search",),
        exempt: Sequence[str] = (),
    ) -> None:
        if not fingerprint.strip():
            raise BadInputError("fingerprint: empty; give that of the gallery index (GalleryIndex.space.fingerprint)")
        if isinstance(paths, str) or isinstance(exempt, str) or not paths:
            raise BadInputError(f"paths {paths!r}, exempt {exempt!r}: give sequences of paths, such as ('/search',)")
        wrong = [path for path in (*paths, *exempt) if not path.startswith("/")]
        if wrong:
            raise BadInputError(f"path {wrong[0]!r}: must start with '/'")
        self.app, self.fingerprint, self.header = app, fingerprint, header.lower().encode("latin-1")
        self.paths, self.exempt = tuple(paths), tuple(exempt)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        refused = self._problem(scope)
        if refused is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await _respond(refused.body, send, "http.response", head=scope.get("method") == "HEAD")
        else:
            await receive()  # websocket.connect: nothing may be sent before it
            if DENIAL in (scope.get("extensions") or {}):
                await _respond(refused.body, send, DENIAL)
            else:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refused.body["error"]})

    def _problem(self, scope: MutableMapping[str, Any]) -> SpaceMismatchError | None:
        if scope["type"] not in ("http", "websocket") or scope.get("method") == "OPTIONS" or not self._guards(scope):
            return None
        given = {value.strip() for name, value in scope["headers"] if bytes(name).lower() == self.header}
        text = ", ".join(sorted(value.decode("latin-1") for value in given))  # two different ones match nothing
        try:
            require_fingerprint(text or None, self.fingerprint)
        except SpaceMismatchError as error:
            return error
        return None

    def _guards(self, scope: MutableMapping[str, Any]) -> bool:
        """By the path as the server gives it and, where the application is mounted, by the path below the mount."""
        whole, root = str(scope["path"]), str(scope.get("root_path") or "")
        below = whole.removeprefix(root) if _is_below(whole, root) else whole
        guarded = any(_is_below(path, top) for top in self.paths for path in (whole, below))
        return guarded and not any(_is_below(path, top) for top in self.exempt for path in (whole, below))


def _is_below(path: str, top: str) -> bool:
    top = top.rstrip("/")
    return path == top or path.startswith(top + "/")


async def _respond(body: dict[str, Any], send: Send, kind: str, *, head: bool = False) -> None:
    """The 409; to HEAD without its body."""
    content = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": f"{kind}.start", "status": CONFLICT, "headers": headers})
    await send({"type": f"{kind}.body", "body": b"" if head else content})
