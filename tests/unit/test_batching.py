"""Batching without a timer."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.runtime.batching import Batcher, Coalescer


class Gate:
    """A `process` whose batches wait until they are let through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()

    async def process(self, items: Sequence[int]) -> None:
        self.batches.append(list(items))
        await self.open.wait()


async def test_what_arrives_in_flight_is_the_next_batch() -> None:
    """While one batch is under way, everything else gathers into one."""
    gate = Gate()
    batcher: Batcher[int] = Batcher(gate.process, batch_max=100, waiting_max=100, in_flight_max=1)
    batcher.add(1)
    batcher.add(2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for item in (3, 4, 5):
        batcher.add(item)
    gate.open.set()
    await batcher.drain()
    assert gate.batches == [[1, 2], [3, 4, 5]]


async def test_a_batch_beside_another_is_as_heavy_or_waits() -> None:
    """A crumb costs a round trip, too, and is served as soon by the batch after."""
    gate = Gate()
    batcher: Batcher[int] = Batcher(gate.process, batch_max=4, waiting_max=100, in_flight_max=2)

    async def add(*items: int) -> None:
        for item in items:
            batcher.add(item)
        for _ in range(3):
            await asyncio.sleep(0)

    await add(1, 2)
    await add(3)
    assert gate.batches == [[1, 2]]
    await add(4)
    assert gate.batches == [[1, 2], [3, 4]]
    await add(5, 6, 7, 8, 9)
    assert len(gate.batches) == 2
    gate.open.set()
    await batcher.drain()
    assert gate.batches == [[1, 2], [3, 4], [5, 6, 7, 8], [9]]


async def test_a_batch_keeps_to_its_weight_but_takes_a_heavy_item_alone() -> None:
    """Weights are added up; an item over the maximum still goes, by itself."""
    gate = Gate()
    gate.open.set()
    batcher: Batcher[int] = Batcher(gate.process, batch_max=10, waiting_max=100, in_flight_max=1)
    for item, weight in ((1, 4), (2, 6), (3, 1), (4, 50), (5, 1)):
        batcher.add(item, weight)
    await batcher.drain()
    assert gate.batches == [[1, 2], [3], [4], [5]]


async def test_above_the_bound_an_item_is_refused_and_not_taken() -> None:
    """The bound counts what waits, not what is in flight."""
    gate = Gate()
    batcher: Batcher[int] = Batcher(gate.process, batch_max=1, waiting_max=2, in_flight_max=1)
    batcher.add(1)
    await asyncio.sleep(0)
    batcher.add(2)
    batcher.add(3)
    with pytest.raises(UnavailableError):
        batcher.add(4)
    gate.open.set()
    await batcher.drain()
    assert gate.batches == [[1], [2], [3]]


async def test_concurrent_callers_of_one_key_share_one_look_up() -> None:
    """A key is asked for once a batch, and again by whoever comes later."""
    asked: list[list[str]] = []

    async def fetch(keys: Sequence[str]) -> Mapping[str, str]:
        asked.append(list(keys))
        await asyncio.sleep(0)
        return {key: key.upper() for key in keys if key != "none"}

    coalescer: Coalescer[str, str] = Coalescer(fetch, batch_max=10, waiting_max=10)
    answers = await asyncio.gather(*[coalescer.get(key) for key in ("a", "b", "a", "none")])
    assert answers == ["A", "B", "A", None]
    assert asked == [["a", "b", "none"]]
    assert await coalescer.get("a") == "A"
    assert len(asked) == 2


async def test_a_question_is_never_answered_by_an_older_look_up() -> None:
    """Whoever asks while a look-up is under way waits for the next one."""
    value = "old"
    started = asyncio.Event()
    go_on = asyncio.Event()

    async def fetch(keys: Sequence[str]) -> Mapping[str, str]:
        read = value
        started.set()
        await go_on.wait()
        return dict.fromkeys(keys, read)

    coalescer: Coalescer[str, str] = Coalescer(fetch, batch_max=10, waiting_max=10)
    first = coalescer.get("a")
    await started.wait()
    value = "new"
    second = coalescer.get("a")
    go_on.set()
    assert [await first, await second] == ["old", "new"]


async def test_a_failed_look_up_fails_all_its_callers_and_no_later_one() -> None:
    """Errors are not remembered either."""
    fail = True

    async def fetch(keys: Sequence[str]) -> Mapping[str, str]:
        if fail:
            raise UnavailableError("away")
        return dict.fromkeys(keys, "there")

    coalescer: Coalescer[str, str] = Coalescer(fetch, batch_max=10, waiting_max=10)
    first = asyncio.gather(coalescer.get("a"), coalescer.get("b"), return_exceptions=True)
    assert all(isinstance(answer, UnavailableError) for answer in await first)
    fail = False
    assert await coalescer.get("a") == "there"
