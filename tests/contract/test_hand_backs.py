"""Messages that came back again and again because the record was away: no suspicion stays on them.

Real queues count every hand-back as a delivery, whatever the reason.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.store import PostgresOrderStore
from polyglot_persistence.config.limits import PersisterLimits
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.behind.sweep import QueueProgress
from polyglot_persistence.ports.orders import OrderStore, Persisted
from polyglot_persistence.ports.queue import Consumer, Queue
from polyglot_persistence.worker.persister import Persister
from tests.support.addresses import BUNDLED_POSTGRES
from tests.support.eventually import eventually
from tests.support.orders import accepted, message
from tests.support.queue_adapters import ADAPTERS, serving
from tests.support.queues import QueueServer
from tests.support.record import Onlooker
from tests.support.scripted import ScriptedCache

pytestmark = BUNDLED_POSTGRES

MESSAGES = 60
HAND_BACKS = 4
WITHIN_SECONDS = 40.0


@pytest_asyncio.fixture(params=ADAPTERS)
async def server(
    request: pytest.FixtureRequest, valkey_server: EmbeddedValkey
) -> AsyncIterator[QueueServer]:
    """An empty queue."""
    async with serving(request.param, valkey_server) as server:
        yield server


class Record:
    """The record, which answers pings and persists nothing for as long as it is told."""

    def __init__(self, store: OrderStore) -> None:
        self._store = store
        self.away = True
        self.batches: list[int] = []
        self.attempted_subjects: set[str] = set()

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        if self.away:
            raise UnavailableError("out of disk")
        self.batches.append(len(batch))
        return await self._store.persist(batch)

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        self.attempted_subjects.update(subjects)
        return await self._store.begin_attempts(subjects)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Channels:
    """A queue whose channels are counted."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.opened = 0

    @asynccontextmanager
    async def consume(self, *, orders_max: int) -> AsyncIterator[Consumer]:
        async with self._queue.consume(orders_max=orders_max) as consumer:
            self.opened += 1
            yield consumer


async def test_what_an_outage_handed_back_is_persisted_in_batches(
    server: QueueServer, pool: Any, seen: Onlooker
) -> None:
    """Messages of one order each, delivered far more than twice in vain, and no worker died."""
    queue = await server.process()
    for number in range(MESSAGES):
        await queue.publish(message([accepted(number)]))
    record, channels = Record(PostgresOrderStore(pool)), Channels(await server.process())
    clock, cache = SystemClock(), ScriptedCache()
    persister = Persister(
        PersistFlow(cast("Any", record), cast("Any", cache), clock),
        queue=cast("Any", channels),
        store=cast("Any", record),
        end_warming=cache.end_warming,
        offer=lambda _: None,
        progress=QueueProgress(),
        clock=clock,
        limits=PersisterLimits(1_000, 1_000, delivery_hold_seconds_max=1.0),
    )

    async def handed_back() -> None:
        assert channels.opened > HAND_BACKS

    async def persisted() -> None:
        assert await seen.value("SELECT count(*) FROM orders") == MESSAGES

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(persister.run(stop))
        await eventually(handed_back, within_seconds=WITHIN_SECONDS)
        record.away = False
        await eventually(persisted, within_seconds=WITHIN_SECONDS)
        stop.set()
    assert any(subject.startswith("message ") for subject in record.attempted_subjects)
    assert len(record.batches) <= MESSAGES // 3
    assert not await seen.rows("SELECT subject FROM suspects WHERE attempts > 0")
    assert not await seen.rows("SELECT id FROM dead_letters")
