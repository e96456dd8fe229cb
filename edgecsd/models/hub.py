"""The hub of Hugging Face, where timm, open_clip and transformers find weights by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import getaddrinfo
from urllib.parse import urlsplit
from urllib.request import getproxies


@contextmanager
def cache_only_without_network() -> Iterator[None]:
    """Where the hub's name has no address and no proxy may know it, look in its cache alone: it retries for 45 s."""
    from huggingface_hub import constants as hub

    known = bool(getproxies())
    with suppress(OSError):
        known = known or bool(getaddrinfo(urlsplit(hub.ENDPOINT).hostname, 443))
    before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE or not known
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before
