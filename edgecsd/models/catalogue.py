"""Query networks that were exported to every target and measured, as the package lists them; loads no framework."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from functools import cache
from importlib import resources
from operator import itemgetter
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
NEAR, LEAST_ALIKE = 6, 0.7  # names that are proposed, and how alike the first of them is at least
NOT_STATED = "not stated"  # a licence
KNOWN_BONUS = 0.1  # of a name in the catalogue, in units of difflib's ratio


class QueryNetwork(BaseModel):
    """A timm network as a query backbone, without its classifier and with its branches fused.

    parameters     of the backbone
    multiply_adds  of one image at `size`
    size           side of its own input, pixels
    width          channels of the feature map
    works          target -> precisions whose file was written and agreed with torch
    size_bytes     precision -> bytes of its TFLite file with a head of 128 dimensions
    host_ms        precision -> CPU time of one inference of that file at `size` on the host, one thread, milliseconds
    licence        of the pretrained weights that timm takes by default, as timm states it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: str
    parameters: Annotated[int, Field(gt=0)]
    multiply_adds: Annotated[int, Field(gt=0)]
    size: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    works: Mapping[str, tuple[str, ...]]
    size_bytes: Mapping[str, int]
    host_ms: Mapping[str, float]
    licence: str

    @property
    def smallest_bytes(self) -> int | None:
        """Of the files of any precision; None where there is none."""
        return min(self.size_bytes.values(), default=None)

    @property
    def fastest_ms(self) -> float | None:
        """Of the precisions that were timed; None where none was."""
        return min(self.host_ms.values(), default=None)


class Catalogue(BaseModel):
    """The networks, and what they were measured with and on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    host: str
    date: str
    commit: str
    timm: str
    networks: tuple[QueryNetwork, ...]


@cache
def catalogue() -> Catalogue:
    """The list that stands in this package; `benchmarks/zoo.py --catalogue` writes it."""
    text = resources.files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    return Catalogue.model_validate_json(text)


def fitting(
    networks: Iterable[QueryNetwork],
    *,
    word: str = "",
    target: str | None = None,
    most_bytes: int | None = None,
    most_ms: float | None = None,
) -> list[QueryNetwork]:
    """Those within all limits, the fastest first; by size where `most_bytes` is the only limit.

    word        in the name or family, however it is spelt
    target      some precision works there
    most_bytes  of the smallest file
    most_ms     of the fastest file
    """
    found = [
        network
        for network in networks
        if matches(word, network.name, network.family)
        and (target is None or network.works.get(target))
        and (most_bytes is None or _or_huge(network.smallest_bytes) <= most_bytes)
        and (most_ms is None or _or_huge(network.fastest_ms) <= most_ms)
    ]
    by_size = most_bytes is not None and most_ms is None
    found.sort(key=lambda network: _or_huge(network.smallest_bytes if by_size else network.fastest_ms))
    return found


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Up to six of the `known` names that `name` may have meant, the most likely first; [] if none is like it.

    Only letters and digits count, and their case does not. A name that begins as asked comes before one that holds it
    (or whose family does), and that before one that resembles it (difflib); of those the catalogue's come first.
    """
    families = {network.name: _plain(network.family) for network in catalogue().networks}
    plain = _plain(name)

    def likeness(each: str) -> tuple[int, float, float]:
        own, family = _plain(each), families.get(each)
        ratio, listed = SequenceMatcher(None, plain, own, autojunk=False).ratio(), float(family is not None)
        if own == plain:
            return 3, listed, ratio
        if own.startswith(plain) or plain in own or plain in (family or ""):
            return 2 if own.startswith(plain) else 1, listed, ratio
        return 0, ratio + KNOWN_BONUS * listed, ratio

    scored = [(likeness(each), each) for each in sorted(known)] if plain else []
    scored.sort(key=itemgetter(0), reverse=True)  # stable: equals stay in the order of their names
    return [each for (place, score, _), each in scored[:NEAR] if place or score >= LEAST_ALIKE]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def matches(word: str, *texts: str) -> bool:
    """Whether one of the texts holds the word; only letters and digits count, and their case does not."""
    return any(_plain(word) in _plain(text) for text in texts)


def _or_huge(value: float | None) -> float:
    return float("inf") if value is None else value
