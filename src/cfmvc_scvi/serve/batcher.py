"""Micro-batching: requests that wait together are answered together, by one thread that owns the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Batcher", "Job"]

#: What one request gets: an answer, or the error that it caused.
Outcome: TypeAlias = Any
_MOST_CELLS = 1024


@dataclass(frozen=True)
class Job:
    """One request.

    Attributes
    ----------
    kind
        Requests of one kind can be answered together.
    n_cells
        How many cells it has.
    content
        For the function that answers.
    answer
        Where its outcome is awaited.
    """

    kind: Hashable
    n_cells: int
    content: Any
    answer: asyncio.Future[Outcome]


class Batcher:
    """Answers requests in one thread; those of a kind that arrived in the meantime together.

    Nobody waits for company: a request that finds the thread idle is answered at once, and while it is, others gather.

    Parameters
    ----------
    answer
        Called in the thread with the contents of some requests of one kind; returns the outcome of each: an answer, or
        an exception.
    together
        Whether to answer requests together at all.
    observe
        Told the number of cells of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Any]], Sequence[Outcome]],
        *,
        together: bool = True,
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._answer, self._together, self._observe = answer, together, observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: list[Job] = []
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, kind: Hashable, n_cells: int, content: Any) -> Outcome:
        """Return the answer to a request, or raise what it caused.

        A request whose caller has gone before its turn is not answered.
        """
        job = Job(kind, n_cells, content, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return await job.answer

    def start(self) -> None:
        """Begin to answer; in the loop of the service."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop, after what is in the thread has been answered."""
        if self._task is not None:
            self._task.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            jobs = self._next()
            if not jobs:
                self._arrived.clear()
                continue
            self._observe(sum(job.n_cells for job in jobs))
            contents = [job.content for job in jobs]
            try:
                outcomes = await loop.run_in_executor(self._thread, self._answer, contents)
            except Exception as error:  # noqa: BLE001  # a bug must fail these requests, not the service
                outcomes = [error] * len(jobs)
            for job, outcome in zip(jobs, outcomes, strict=True):
                if job.answer.done():
                    continue
                if isinstance(outcome, Exception):
                    job.answer.set_exception(outcome)
                else:
                    job.answer.set_result(outcome)

    def _next(self) -> list[Job]:
        """Take the oldest request, and others of its kind."""
        waiting = [job for job in self._waiting if not job.answer.done()]
        chosen: list[Job] = []
        rest: list[Job] = []
        n_cells = 0
        for job in waiting:
            fits = not chosen or (
                self._together and job.kind == chosen[0].kind and n_cells + job.n_cells <= _MOST_CELLS
            )
            (chosen if fits else rest).append(job)
            n_cells += job.n_cells if fits else 0
        self._waiting = rest
        return chosen
