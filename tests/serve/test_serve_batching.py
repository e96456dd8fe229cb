"""The batcher: who shares a call, who does not, and what happens to those who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from edgecsd.serve.batching import Batcher
from edgecsd.serve.limits import Refusal


class SlowFind:
    """Each vector's first number is its score; rows count up. Remembers (vectors, k) of its calls."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.calls: list[tuple[int, int]] = []
        self._seconds = seconds

    def __call__(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append((len(vectors), k))
        time.sleep(self._seconds)
        return np.repeat(vectors[:, :1], k, axis=1), np.tile(np.arange(k), (len(vectors), 1))


def vector(value: float, count: int = 1) -> np.ndarray:
    return np.full((count, 2), value, np.float32)


def run(batcher: Batcher, work: Coroutine[Any, Any, Any]) -> Any:
    async def whole() -> Any:
        batcher.start()
        try:
            return await work
        finally:
            await batcher.close()

    return asyncio.run(whole())


def test_what_arrives_while_faiss_is_busy_shares_the_next_call() -> None:
    find = SlowFind()
    batcher = Batcher(find)

    async def work() -> list[Any]:
        first = asyncio.create_task(batcher.search(vector(0.5), 3))
        await asyncio.sleep(0.01)
        rest = [asyncio.create_task(batcher.search(vector(n, count=n), 3)) for n in (1, 2, 3)]
        return await asyncio.gather(first, *rest)

    answers = run(batcher, work())
    assert find.calls == [(1, 3), (6, 3)]
    for (scores, rows), value, count in zip(answers, (0.5, 1, 2, 3), (1, 1, 2, 3), strict=True):
        assert scores.shape == rows.shape == (count, 3)
        assert (scores == value).all()


def test_other_k_and_what_does_not_fit_go_into_calls_of_their_own() -> None:
    find = SlowFind()
    batcher = Batcher(find, max_batch=4)

    async def work() -> None:
        jobs = [(1, 3), (2, 3), (1, 5), (3, 3), (1, 3)]
        await asyncio.gather(*(batcher.search(vector(1, count), k) for count, k in jobs))

    run(batcher, work())
    assert find.calls == [(4, 3), (1, 5), (3, 3)]


def test_a_search_waits_for_a_request_that_is_being_read() -> None:
    find = SlowFind()
    batcher = Batcher(find, max_wait=5.0)

    async def reader() -> None:
        with batcher.coming():
            await asyncio.sleep(0.05)
        await batcher.search(vector(2), 1)

    async def work() -> float:
        begun = time.monotonic()
        await asyncio.gather(reader(), batcher.search(vector(1), 1))
        return time.monotonic() - begun

    assert run(batcher, work()) < 4  # not for the whole of max_wait
    assert find.calls == [(2, 1)]


def test_an_error_goes_to_those_who_asked_and_the_next_search_works() -> None:
    broken = [True]

    def find(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if broken.pop() if broken else False:
            raise RuntimeError("out of memory")
        return np.zeros((len(vectors), k)), np.zeros((len(vectors), k), np.int64)

    batcher = Batcher(find)

    async def work() -> None:
        with pytest.raises(RuntimeError, match="out of memory"):
            await batcher.search(vector(1), 1)
        await batcher.search(vector(1), 1)

    run(batcher, work())


def test_too_many_waiting_are_refused_and_a_stop_answers_the_others() -> None:
    find = SlowFind()
    batcher = Batcher(find, waiting=4, max_batch=2)

    async def work() -> None:
        tasks = [asyncio.create_task(batcher.search(vector(0, 2), 1))]
        await asyncio.sleep(0.01)  # these two are with faiss; four others wait
        tasks += [asyncio.create_task(batcher.search(vector(n, 2), 1)) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await batcher.search(vector(9), 1)
        assert refused.value.status == 503 and refused.value.headers["retry-after"] == "1"
        await batcher.close()
        assert [task.result()[0][0, 0] for task in tasks] == [0, 1, 2]
        with pytest.raises(Refusal, match="stopping"):
            await batcher.search(vector(9), 1)

    run(batcher, work())
