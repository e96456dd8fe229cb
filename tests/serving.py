"""A real server in a thread, on loopback, and a small gallery to search."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import Items, write_store
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.serve.application import Service, make_application
from edgecsd.serve.handshake import HEADER
from edgecsd.serve.server import make_server

TOKEN = "token-of-the-tests"
DIM = 16


def unit(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_index(
    folder: Path, vectors: np.ndarray, space: EmbeddingSpace, ids: tuple[str, ...], **options
) -> GalleryIndex:
    store = write_store(folder / "gallery.store", space, Items(ids, ("",) * len(ids)), vectors, dtype="float32")
    return build_index(store, folder / "gallery.index", **options)


def random_index(folder: Path, rows: int = 400, **options) -> GalleryIndex:
    space = EmbeddingSpace(gallery_model="acme-v7", dim=DIM)
    return make_index(folder, unit(rows), space, tuple(f"item-{row:04d}" for row in range(rows)), **options)


@contextmanager
def running(service: Service, port: int = 0) -> Iterator[str]:
    """The address of a server that answers; it is stopped gracefully at the end."""
    server = make_server(make_application(service, TOKEN, secure=False))
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


def client(root: str, fingerprint: str, token: str = TOKEN) -> httpx.Client:
    headers = {"authorization": f"Bearer {token}", HEADER: fingerprint}
    return httpx.Client(base_url=root, headers=headers, timeout=120, trust_env=False)
