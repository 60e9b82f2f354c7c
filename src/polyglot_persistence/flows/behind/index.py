"""Indexing of persisted orders, from memory or from the outbox.

The persist transaction wrote one outbox row with the ids that it inserted. The row is deleted once
the index holds them, so search is always a subset of the record and no wipe of a queue loses
indexing work.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import Protocol

from polyglot_persistence import tracing
from polyglot_persistence.domain.dead_letter import Stage
from polyglot_persistence.flows.behind.burial import bury, letter_of
from polyglot_persistence.flows.behind.freshness import FreshnessCount
from polyglot_persistence.flows.behind.persist import ToIndex
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import Orders, StoredOrder
from polyglot_persistence.ports.outbox import Outbox
from polyglot_persistence.ports.search import IndexFailure, SearchIndex
from polyglot_persistence.telemetry import (
    INDEX_LAG_SECONDS,
    INDEX_SECONDS,
    INDEXED,
    logger,
)

_log = logger("index")


class _Record(Orders, Outbox, Protocol):
    """The ports needed of the record."""


@dataclass
class IndexFlow:
    """Keeps the search index a subset of the record that is only briefly behind."""

    record: _Record
    search: SearchIndex
    clock: Clock
    _: KW_ONLY
    freshness: FreshnessCount | None = None

    async def index(self, batches: Sequence[ToIndex]) -> None:
        """Index what was just persisted and delete its outbox rows.

        Raises:
            UnavailableError: index or record is away; the outbox still has all of it.
        """
        orders = list(chain.from_iterable(batch.orders for batch in batches))
        origins = [batch.origin for batch in batches]
        with tracing.batch_span("index orders", origins, {"polyglot.batch.units": len(batches)}):
            await self._index(orders)
            done = set(await self.record.outbox_done([batch.outbox_id for batch in batches]))
        # A batch that waited long may have been indexed from the outbox, and counted there.
        counted = (batch.orders for batch in batches if batch.outbox_id in done)
        self._note(list(chain.from_iterable(counted)))

    async def work_off_outbox(self, older_than_seconds: float, orders_max: int) -> int:
        """Index one batch left behind by a crash or an outage; return the number of orders.

        Raises:
            UnavailableError: index or record is away.
        """
        async with self.record.claim_outbox(older_than_seconds, orders_max) as batch:
            await self._index(batch.orders)
            await self.search.remove(batch.gone)
        self._note([row for row in batch.orders if row.order.id in batch.new])
        worked_off = len(batch.orders) + len(batch.gone)
        if worked_off:
            _log.info("outbox_worked_off", orders=len(batch.orders), removed=len(batch.gone))
        return worked_off

    def _note(self, orders: Sequence[StoredOrder]) -> None:
        if self.freshness is not None and orders:
            self.freshness.note([row.accepted_at for row in orders], self.clock.now())

    async def _index(self, orders: Sequence[StoredOrder]) -> None:
        if not orders:
            return
        started = self.clock.monotonic()
        failures = await self.search.index(orders)
        INDEX_SECONDS.observe(self.clock.monotonic() - started)
        await bury_failures(self.record, orders, failures)
        INDEXED.inc(len(orders) - len(failures))
        now = self.clock.now()
        INDEX_LAG_SECONDS.observe_all(
            [max((now - row.accepted_at).total_seconds(), 0.0) for row in orders]
        )


async def bury_failures(
    orders: Orders, indexed: Sequence[StoredOrder], failures: Sequence[IndexFailure]
) -> None:
    """Dead-letter the orders that an index can never take.

    Raises:
        UnavailableError: the record is away.
    """
    if not failures:
        return
    rows = {row.order.id: row for row in indexed}
    letters = [letter_of(rows[f.order_id].accepted(), f.reason, Stage.INDEX) for f in failures]
    await bury(orders, letters)
