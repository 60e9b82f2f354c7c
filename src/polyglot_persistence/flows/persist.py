"""From accepted to persisted: record, then cache; what can never be persisted goes alone.

```
  batch of whole units --persist, one transaction--> stored --settle: clean--> to the indexer
        |                                               (a failed settle: the sweeper's work)
        | PoisonError: halve the batch, down to the single unit
        +--> bury (dead letter) --settle: dead-lettered
```

Order of effects: commit, settle, acknowledge, index. A crash between any two repeats the rest:
every step is idempotent by order id.

Invariant: a unit is persisted or dead-lettered whole.
Invariant: nothing is dead-lettered because a store is away; that raises, and the caller waits.
"""

from collections.abc import Sequence
from typing import NamedTuple

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import PoisonError, PolyglotError
from polyglot_persistence.ports import (
    Cache,
    Clock,
    OrderStore,
    Persisted,
    Settled,
    StoredOrder,
)
from polyglot_persistence.telemetry import (
    DEAD_LETTERED,
    PERSIST_LAG_SECONDS,
    PERSIST_ORDERS,
    PERSIST_SECONDS,
    PERSISTED,
    logger,
)

_log = logger("persist")


class ToIndex(NamedTuple):
    """Orders that were inserted by one transaction, and its outbox row."""

    outbox_id: int
    orders: Sequence[StoredOrder]


class PersistFlow:
    """Persists batches, whoever brings them: the queue, the sweeper, or a replay."""

    def __init__(self, store: OrderStore, cache: Cache, clock: Clock) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock

    async def persist(self, batch: Sequence[AcceptedOrder], source: str) -> Sequence[ToIndex]:
        """Persist whole units and clean their entries; return what is to be indexed.

        When it returns, every order of the batch is in the record or in the dead letters.

        Raises:
            UnavailableError: the record is away; persist the same batch again.
            UnknownOutcomeError: likewise.
        """
        if not batch:
            return []
        started = self._clock.monotonic()
        try:
            persisted = await self._store.persist(batch)
        except PoisonError as error:
            return await self._isolate(batch, source, error)
        PERSIST_SECONDS.observe(self._clock.monotonic() - started)
        PERSIST_ORDERS.observe(len(batch))
        PERSISTED.labels(source).inc(len(persisted.inserted))
        settled = [Settled(EntryState.CLEAN, _as_row(row)) for row in persisted.stored.values()]
        if persisted.conflicts:
            settled += await self._bury_conflicts(batch, persisted)
        await self._settle(settled)
        return self._to_index(persisted)

    async def bury_unreadable(self, rejects: Sequence[codec.Reject]) -> None:
        """Write dead letters for message items that no worker can read."""
        await self._store.bury(
            [
                DeadLetter(r.order_id, r.unit_id, r.payload, r.reason, Stage.DECODE, attempts=1)
                for r in rejects
            ]
        )
        DEAD_LETTERED.labels(Stage.DECODE.value).inc(len(rejects))
        for reject in rejects:
            _log.error(
                "dead_lettered", stage="decode", order_id=reject.order_id, reason=reject.reason
            )

    def _to_index(self, persisted: Persisted) -> Sequence[ToIndex]:
        if persisted.outbox_id is None:
            return []
        orders = [persisted.stored[i] for i in persisted.inserted]
        for row in orders:
            lag = (row.persisted_at - row.accepted_at).total_seconds()
            PERSIST_LAG_SECONDS.observe(max(lag, 0.0))
        return [ToIndex(persisted.outbox_id, orders)]

    async def _isolate(
        self, batch: Sequence[AcceptedOrder], source: str, error: PoisonError
    ) -> Sequence[ToIndex]:
        units = whole_units(batch)
        if len(units) == 1:
            await self._bury(units[0], str(error))
            await self._settle([Settled(EntryState.DEAD, accepted) for accepted in units[0]])
            return []
        middle = len(units) // 2
        to_index: list[ToIndex] = []
        for half in (units[:middle], units[middle:]):
            to_index += await self.persist([one for unit in half for one in unit], source)
        return to_index

    async def _bury_conflicts(
        self, batch: Sequence[AcceptedOrder], persisted: Persisted
    ) -> list[Settled]:
        """Bury units of which a member's id is taken; return what their entries become."""
        settled = []
        for unit in whole_units(batch):
            taken = [one.order.id for one in unit if one.order.id in persisted.conflicts]
            if not taken or _is_the_stored_one(unit, persisted):
                continue
            await self._bury(unit, f"the record holds another order under {taken[0]}")
            for accepted in unit:
                row = persisted.conflicts.get(accepted.order.id)
                settled.append(
                    Settled(EntryState.DEAD, accepted)
                    if row is None
                    else Settled(EntryState.CLEAN, _as_row(row))
                )
        return settled

    async def _bury(self, unit: Sequence[AcceptedOrder], reason: str) -> None:
        await self._store.bury(
            [
                DeadLetter(
                    accepted.order.id,
                    accepted.unit_id,
                    codec.encode_item(accepted, codec.encode_order(accepted.order)),
                    reason,
                    Stage.PERSIST,
                    attempts=1,
                )
                for accepted in unit
            ]
        )
        DEAD_LETTERED.labels(Stage.PERSIST.value).inc(len(unit))
        for accepted in unit:
            _log.error("dead_lettered", stage="persist", order_id=accepted.order.id, reason=reason)

    async def _settle(self, settled: Sequence[Settled]) -> None:
        try:
            await self._cache.settle(settled)
        except PolyglotError as error:
            # Not a reason to hold up anything: the entries stay dirty and the sweeper cleans them.
            _log.warning("settle_failed", orders=len(settled), error=str(error))


def _as_row(row: StoredOrder) -> AcceptedOrder:
    return AcceptedOrder(row.order, row.accepted_at, row.order.id)


def _is_the_stored_one(unit: Sequence[AcceptedOrder], persisted: Persisted) -> bool:
    """Whether this unit agrees with the record, and another one of the batch did not."""
    return all(
        (row := persisted.stored.get(one.order.id) or persisted.conflicts.get(one.order.id))
        is not None
        and one.order.same_content(row.order, created_at_given=one.created_at_given)
        for one in unit
    )
