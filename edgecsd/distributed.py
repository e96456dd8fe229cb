"""The processes that torchrun started, where it did: which of them this is, and waiting for the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from edgecsd.errors import BadInputError

Item = TypeVar("Item")
PATIENCE = timedelta(hours=12)  # how long one process waits for the slowest other


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run: rank 0 to count - 1. A run without torchrun is rank 0 of 1."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process does what only one may do."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every count-th item, beginning with the rank-th: each item is in exactly one process' share."""
        return items[self.rank :: self.count]

    @contextmanager
    def one_ahead(self) -> Iterator[None]:
        """The first process goes through the block alone; the others follow when it is through."""
        if not self.first:
            self.meet()
        yield
        if self.first:
            self.meet()

    def mean(self, value: float) -> float:
        """The mean of every process' value."""
        if self.count == 1:
            return value
        import torch

        total = torch.tensor(value, dtype=torch.float64)
        _process_group().all_reduce(total)
        return float(total) / self.count

    def meet(self) -> None:
        """Return when every process has called this; at once where there is only one."""
        if self.count > 1:
            _process_group().barrier()


ALONE = Ranks()


def own_cores() -> int:
    """Cores for each of the processes that run on this machine: at least one."""
    neighbours = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, (os.cpu_count() or 2) // max(1, int(neighbours) if neighbours.isdecimal() else 1))


def ranks() -> Ranks:
    """What torchrun's environment (RANK, WORLD_SIZE) says; BadInputError if it says nonsense."""
    rank, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
        raise BadInputError(f"RANK={rank}, WORLD_SIZE={count}: not a rank among so many; start them with torchrun")
    return Ranks(int(rank), int(count))


def _process_group() -> Any:
    """torch.distributed with its group set up: gloo, which needs no GPU."""
    import torch.distributed as group

    if not group.is_initialized():
        group.init_process_group("gloo", timeout=PATIENCE)
    return group
