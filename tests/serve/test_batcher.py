"""Requests that wait together are answered together, each with its own outcome."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from cfmvc_scvi.serve.batcher import Batcher


class Model:
    """Doubles numbers, refuses negative ones, and notes what it was asked at a time; waits for `gate` first."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, contents: Sequence[Any]) -> list[Any]:
        assert self.gate.wait(10)
        self.batches.append(list(contents))
        if 666 in contents:
            raise RuntimeError("a bug")
        return [ValueError(f"{number} is negative") if number < 0 else 2 * number for number in contents]


async def ask(model: Model, questions: list[tuple[str, int]], **options: Any) -> list[Any]:
    batcher = Batcher(model, **options)
    batcher.start()
    model.gate.clear()
    tasks = [asyncio.create_task(batcher(kind, 1, number)) for kind, number in questions]
    await asyncio.sleep(0.05)  # all wait, but for the first
    model.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await batcher.stop()
    return outcomes


def test_those_of_a_kind_that_gather_meanwhile_are_answered_together() -> None:
    model, sizes = Model(), []
    questions = [("a", 0), ("a", 1), ("b", 2), ("a", 3), ("b", 4)]
    assert asyncio.run(ask(model, questions, observe=sizes.append)) == [0, 2, 4, 6, 8]
    assert model.batches == [[0, 1, 3], [2, 4]] or model.batches == [[0], [1, 3], [2, 4]]
    assert sum(sizes) == 5


def test_one_by_one_where_that_is_asked_for() -> None:
    model = Model()
    assert asyncio.run(ask(model, [("a", 1), ("a", 2), ("a", 3)], together=False)) == [2, 4, 6]
    assert model.batches == [[1], [2], [3]]


def test_each_gets_its_own_error_and_a_bug_is_survived() -> None:
    model = Model()
    outcomes = asyncio.run(ask(model, [("a", 1), ("a", -1), ("b", 666), ("c", 4)]))
    assert outcomes[0] == 2 and outcomes[3] == 8
    assert isinstance(outcomes[1], ValueError) and isinstance(outcomes[2], RuntimeError)


def test_who_has_gone_is_not_answered() -> None:
    model = Model()

    async def leave() -> None:
        batcher = Batcher(model)
        batcher.start()
        model.gate.clear()
        first = asyncio.create_task(batcher("a", 1, 1))
        await asyncio.sleep(0.02)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher("b", 1, 2), 0.02)
        model.gate.set()
        assert await first == 2
        assert await batcher("c", 1, 3) == 6
        await batcher.stop()

    asyncio.run(leave())
    assert model.batches == [[1], [3]]


def test_a_batch_is_bounded() -> None:
    model = Model()

    async def many() -> list[int]:
        batcher = Batcher(model)
        batcher.start()
        model.gate.clear()
        tasks = [asyncio.create_task(batcher("a", 600, number)) for number in range(4)]
        await asyncio.sleep(0.02)
        model.gate.set()
        answers = await asyncio.gather(*tasks)
        await batcher.stop()
        return answers

    assert asyncio.run(many()) == [0, 2, 4, 6]
    assert [len(batch) for batch in model.batches] == [1, 1, 1, 1]
