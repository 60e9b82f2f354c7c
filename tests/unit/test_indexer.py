"""The indexer: what it gathers, what it drops, and in which parts it works off the outbox."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from polyglot_persistence.config import load
from polyglot_persistence.config.limits import IndexerLimits
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.behind.persist import ToIndex
from polyglot_persistence.worker.indexer import GATHER_ORDERS, Indexer


class IndexFlowStand:
    """An index flow that writes down what it is given."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.asked_for: list[int] = []
        """Orders at most, by each look at the outbox."""
        self.failing = False
        self.called = asyncio.Event()

    async def index(self, batches: Sequence[ToIndex]) -> None:
        self.called.set()
        if self.failing:
            raise UnavailableError("away")
        self.calls.append([batch.outbox_id for batch in batches])

    @property
    def indexed(self) -> list[int]:
        return [outbox_id for call in self.calls for outbox_id in call]

    async def work_off_outbox(self, older_than_seconds: float, orders_max: int) -> int:
        self.asked_for.append(orders_max)
        if self.failing:
            raise UnavailableError("no answer in time")
        return 0


def to_index(outbox_id: int, size: int) -> ToIndex:
    return ToIndex(outbox_id, cast("Any", [None] * size))


def limits(batch_orders: int, waiting_orders_max: int) -> IndexerLimits:
    return replace(
        load({}).index,
        index_batch_orders=batch_orders,
        index_waiting_orders_max=waiting_orders_max,
    )


async def test_what_waits_is_indexed_before_the_indexer_ends() -> None:
    """Stop means: no more is offered."""
    flow, stop = IndexFlowStand(), asyncio.Event()
    indexer = Indexer(cast("Any", flow), limits(10, 100))
    indexer.offer([to_index(number, 6) for number in range(5)])
    stop.set()
    await indexer.run(stop)
    assert sorted(flow.indexed) == [0, 1, 2, 3, 4]


async def test_what_finds_no_room_is_left_to_the_outbox() -> None:
    """Memory is bounded; nothing else is lost by it."""
    flow, stop = IndexFlowStand(), asyncio.Event()
    indexer = Indexer(cast("Any", flow), limits(10, 10))
    indexer.offer([to_index(1, 6), to_index(2, 6), to_index(3, 4)])
    stop.set()
    await indexer.run(stop)
    assert sorted(flow.indexed) == [1, 3]


async def test_orders_that_come_shortly_after_each_other_are_indexed_together() -> None:
    """Few wait a moment for others; as many as a bulk takes wait for nobody."""
    flow, stop = IndexFlowStand(), asyncio.Event()
    indexer = Indexer(cast("Any", flow), limits(GATHER_ORDERS, 10_000))
    running = asyncio.create_task(indexer.run(stop))
    indexer.offer([to_index(1, 1)])
    await asyncio.sleep(0)  # lets the indexer see the first alone
    indexer.offer([to_index(2, 1)])
    await flow.called.wait()
    assert flow.calls == [[1, 2]]
    flow.called.clear()
    indexer.offer([to_index(3, GATHER_ORDERS)])
    await flow.called.wait()
    indexer.offer([to_index(4, 1)])
    stop.set()
    await running
    assert flow.calls[1:] == [[3], [4]]


async def test_an_outage_empties_the_memory() -> None:
    """The outbox survives it, and memory need not hold it for hours."""
    flow, stop = IndexFlowStand(), asyncio.Event()
    flow.failing = True
    indexer = Indexer(cast("Any", flow), limits(1, 100))
    indexer.offer([to_index(1, 1), to_index(2, 1), to_index(3, 1)])
    running = asyncio.create_task(indexer.run(stop))
    await flow.called.wait()
    flow.failing = False
    stop.set()
    await running
    assert 3 not in flow.indexed


async def test_what_is_too_much_for_the_index_comes_in_smaller_parts() -> None:
    """Each failure halves what is taken from the outbox at once, each success doubles it again."""
    flow = IndexFlowStand()
    indexer = Indexer(cast("Any", flow), limits(5, 100))
    for failing in (True, True, True, False, False, False, False):
        flow.failing = failing
        with contextlib.suppress(UnavailableError):
            await indexer._work_off()
    assert flow.asked_for == [5, 2, 1, 1, 2, 4, 5]
