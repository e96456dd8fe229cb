"""A seeded case: one thing broken, or one thing varied that is sound, and the words that must name the cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seeded.workshop import Pair, Workshop


@dataclass(frozen=True)
class Case:
    """One pair to check.

    group   where the defect is: file, index, query photos, device, or what a healthy variation varies
    make    makes the pair
    words   one of these must stand in what the gate says, whatever its case; empty for what is healthy
    """

    name: str
    group: str
    make: Callable[[Workshop], Pair]
    words: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        return not self.words
