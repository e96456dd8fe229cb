"""Concurrent searches -> one faiss call: requests that arrive while faiss is busy go into its next call together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.serve.limits import Refusal

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Search = Callable[[Floats, int], tuple[Floats, Rows]]
MAX_BATCH = 64  # vectors in one faiss call
MAX_WAIT = 0.002  # seconds that a search waits for others that are known to be coming


@dataclass(frozen=True)
class _Job:
    vectors: Floats
    k: int
    answer: asyncio.Future[tuple[Floats, Rows]]


class Batcher:
    """Answers `search` calls of one event loop through `find`, which runs in a thread of its own, a call at a time.

    find      (Q, dim), k -> cosines (Q, k) and rows (Q, k), such as GalleryIndex.search
    waiting   vectors that may wait; more are refused with 503
    observe   called with the number of vectors of every call

    Only searches of the same k share a call: a graph searches wider for a larger k, so that its results depend on it.
    """

    def __init__(
        self,
        find: Search,
        *,
        waiting: int = 1024,
        max_batch: int = MAX_BATCH,
        max_wait: float = MAX_WAIT,
        observe: Callable[[int], None] = lambda vectors: None,
    ) -> None:
        self._find, self._limit, self._observe = find, waiting, observe
        self._max_batch, self._max_wait = max_batch, max_wait
        self._jobs: deque[_Job] = deque()
        self._waiting = self._coming = 0
        self._arrived, self._closing = asyncio.Event(), False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="faiss")
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Answer what waits, then stop."""
        self._closing = True
        self._arrived.set()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Around the reading of a request: others wait `max_wait` for it, to share its faiss call."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._arrived.set()

    async def search(self, vectors: Floats, k: int) -> tuple[Floats, Rows]:
        """Cosines (Q, k) and rows (Q, k) of (Q, dim) vectors."""
        if self._closing or self._waiting + len(vectors) > self._limit:
            message = "the service is stopping" if self._closing else f"{self._waiting} vectors wait already"
            raise Refusal(503, "busy", message, "try again in a second", {"retry-after": "1"})
        job = _Job(vectors, k, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._waiting += len(vectors)
        self._arrived.set()
        return await job.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._jobs or not self._closing:
            if not self._jobs:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._wait_for_more()
            jobs = self._take()
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, jobs)
            except Exception as error:  # of whatever kind, it belongs to those who asked
                for job in jobs:
                    if not job.answer.done():
                        job.answer.set_exception(error)
                continue
            for job, answer in zip(jobs, answers, strict=True):
                if not job.answer.done():
                    job.answer.set_result(answer)

    async def _wait_for_more(self) -> None:
        try:
            async with asyncio.timeout(self._max_wait):
                while self._coming and self._waiting < self._max_batch:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return

    def _take(self) -> list[_Job]:
        """The oldest job and those of its k that fit beside it, oldest first."""
        taken, left, size = [self._jobs.popleft()], [], 0
        size = len(taken[0].vectors)
        while self._jobs:
            job = self._jobs.popleft()
            if job.k == taken[0].k and size + len(job.vectors) <= self._max_batch:
                taken.append(job)
                size += len(job.vectors)
            else:
                left.append(job)
        self._jobs.extend(left)
        self._waiting -= size
        return taken

    def _answer(self, jobs: list[_Job]) -> list[tuple[Floats, Rows]]:
        vectors = np.concatenate([job.vectors for job in jobs])
        self._observe(len(vectors))
        scores, rows = self._find(vectors, jobs[0].k)
        ends = np.cumsum([len(job.vectors) for job in jobs])[:-1]
        return list(zip(np.split(scores, ends), np.split(rows, ends), strict=True))
