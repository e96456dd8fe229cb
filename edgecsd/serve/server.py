"""serve: an index, and maybe a query model with the gallery's photos -> a service that runs until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecsd.errors import BadInputError, missing_extra
from edgecsd.features.space import require_same_space
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.opening import open_index
from edgecsd.measuring.parity import NeighbourIndex
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.serve.wire import Codebook
from edgecsd.targets.artifact import read_metadata, target_of

try:
    import uvicorn
    from starlette.types import ASGIApp
except ImportError as error:
    raise missing_extra(error.name or "starlette", "serve") from None

from edgecsd.serve.application import Service, make_application
from edgecsd.serve.assets import runtime_files
from edgecsd.serve.guard import TimedProtocol
from edgecsd.serve.limits import Limits
from edgecsd.serve.phone import PhonePage, make_phone_page, require_browser_file
from edgecsd.serve.queries import K
from edgecsd.serve.tls import Certificate, given_certificate, self_signed

TOKEN = re.compile(r"[A-Za-z0-9_-]{8,200}")
STOP_SECONDS = 10  # that running requests are given to end


@dataclass(frozen=True)
class Address:
    """Where the service listens. url: with the token where there is a page to open; root: without it."""

    root: str
    token: str
    phone: bool
    fingerprint: str
    gallery: int

    @property
    def url(self) -> str:
        return f"{self.root}/?token={self.token}" if self.phone else self.root


def serve(
    index: Path,
    *,
    announce: Callable[[Address], None],
    model: Path | None = None,
    photos: ImageSet | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    tls: bool = False,
    cert: Path | None = None,
    key: Path | None = None,
    token: str | None = None,
    rate: float = Limits.rate,
    codebook: Path | None = None,
    golden: Path | None = None,
    out: Path | None = None,
    reporter: Reporter = SILENT,
) -> None:
    """Serve until SIGTERM or SIGINT; running requests are finished first.

    announce  called once, when the service listens
    model     an .onnx or .tflite of the index's embedding space: adds the phone's page; without it searches alone
    photos    those that the gallery was made from: results are shown as photos
    port      0: any free one
    tls       with `cert` and `key`, or a self-signed certificate
    token     what every request must carry; by default a random one
    rate      requests a second of one client address; 0: any number
    golden    a golden pack of the model, whose photos the benchmark tab measures with
    codebook  of `edgecsd wire`: product-quantiser codes are taken, too
    out       JSON lines that the phones' benchmarks are appended to

    Raises IncompatibleError for a model of another embedding space, BadInputError for what cannot be used, and
    MissingBackendError where the browser's runtime cannot be fetched.
    """
    limits, chosen = Limits(rate=rate, burst=4 * rate), _token(token)
    opened = open_index(index)
    codes = None if codebook is None else Codebook.open(codebook, opened.space)
    page = _page(opened, model, photos, out, golden, reporter)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        shown = shown_host(host)
        certificate = _certificate(tls, cert, key, shown, stack)
        service = Service(opened, page, limits, reporter.message, codes)
        application = make_application(service, chosen, secure=certificate is not None)
        bracketed = f"[{shown}]" if ":" in shown else shown
        root = f"{'https' if certificate else 'http'}://{bracketed}:{listening.getsockname()[1]}"
        address = Address(root, chosen, page is not None, opened.space.fingerprint, len(opened.ids))
        server = make_server(application, certificate)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_run(server, listening, lambda: announce(address)))


def make_server(application: ASGIApp, certificate: Certificate | None = None) -> uvicorn.Server:
    """A uvicorn server that leaves signals to its caller."""
    config = uvicorn.Config(
        application,
        http=TimedProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=256,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=certificate.cert if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal again after a graceful stop, and so end the process as if it was killed."""
        yield


async def _run(server: uvicorn.Server, listening: socket.socket, started: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit  # the second time
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    serving = loop.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        started()
    await serving


def _token(given: str | None) -> str:
    if given is None:
        return secrets.token_urlsafe(12)
    if not TOKEN.fullmatch(given):
        raise BadInputError("`token`: 8 to 200 letters, digits, '-' and '_' are needed")
    return given


def _page(
    index: GalleryIndex,
    model: Path | None,
    photos: ImageSet | None,
    out: Path | None,
    golden: Path | None,
    reporter: Reporter,
) -> PhonePage | None:
    if model is None:
        given = {"`photos`": photos, "`out`": out, "`golden`": golden}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise BadInputError(f"{wrong[0]} belongs to the phone's page: give the query model with `model` FILE")
        return None
    if out is not None and out.is_dir():
        raise BadInputError(f"{out}: is a folder; give a file name for the rows, such as {out / 'bench.jsonl'}")
    require_browser_file(model)
    metadata = read_metadata(model)
    require_same_space(index.space, metadata.space, str(index.path), str(model))
    neighbours = NeighbourIndex(index, str(index.path), min(K, len(index.ids)))
    runtime = runtime_files(target_of(model), reporter)
    return make_phone_page(model, metadata, index, runtime, photos, out, golden, neighbours=neighbours)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 is any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        raise BadInputError(f"`host` {host} `port` {port}: cannot listen there: {error}") from None
    # Connections take it over. asyncio sets it only on sockets that name their protocol; these do not, and without
    # it every answer, whose head and body are two writes, waits 40 ms for the client's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _certificate(
    tls: bool, cert: Path | None, key: Path | None, host: str, stack: contextlib.ExitStack
) -> Certificate | None:
    if (cert is None) != (key is None):
        raise BadInputError("`cert` and `key` belong together: give both")
    if cert is not None and key is not None:
        return given_certificate(cert, key)
    if not tls:
        return None
    return self_signed(host, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecsd-tls-"))))


def shown_host(host: str) -> str:
    """The address that a phone uses: of "every address" the one that this machine has in its network."""
    if host not in ("0.0.0.0", "::"):
        return host
    family, far = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))  # of a datagram socket: nothing is sent, a route is looked up
        except OSError:
            return "localhost"
        return str(probe.getsockname()[0])
