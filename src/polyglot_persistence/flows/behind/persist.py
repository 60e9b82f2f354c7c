"""Persisting of accepted orders: record, then cache; a refused unit is dead-lettered alone.

```
  batch of whole units --persist, one transaction--> stored --settle: clean--> to the indexer
        |                                               (a failed settle: the sweeper's work)
        | PoisonError, UnexplainedError: halve the batch, down to the single unit
        +--> bury (dead letter) --settle: dead-lettered
        +--> of an UnexplainedError only if the record takes others (`refusals`), else raise
```

A message that a worker crashed on is retried one unit at a time. A unit that was alone in five
crashes is dead-lettered, see `suspects`. A message that was merely redelivered, as all are while
the record is away, is persisted together with other redelivered ones, to find out whether one of
them crashes the worker.

Order of effects: commit, settle, acknowledge, index. A crash between any two repeats the rest:
every step is idempotent by order id.

Invariant: a unit is persisted or dead-lettered whole.
Invariant: nothing is dead-lettered because a store is away; that raises, and the caller waits.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from polyglot_persistence import tracing
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import (
    PoisonError,
    PolyglotError,
    UnavailableError,
    UnexplainedError,
    UnknownOutcomeError,
)
from polyglot_persistence.flows.behind.burial import bury, letter_of, payload_of
from polyglot_persistence.flows.behind.refusals import Refusals
from polyglot_persistence.flows.behind.suspects import DEATHS_MAX, Suspects
from polyglot_persistence.ports.attempts import Attempts
from polyglot_persistence.ports.cache import Cache, Settled
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import Found, Orders, Persisted, StoredOrder
from polyglot_persistence.telemetry import (
    PERSIST_LAG_SECONDS,
    PERSIST_ORDERS,
    PERSIST_SECONDS,
    PERSISTED,
    logger,
)

_log = logger("persist")

SWEEP = "sweep"
"""The subject of the attempts at whole sweeps."""

REPLAY = "replay"
"""The source of orders that are dead letters, and remain so if refused for any reason."""

SAMPLE_UNITS = 8
"""If the record refuses this many units of a batch one by one, the whole batch waits. To try all
would be 4,000 statements for 2,000 orders, again and again."""

SWEEPS_DIED_MAX = 2
"""After this many unfinished sweeps in a row, a sweep goes unit by unit: as with the queue's
redeliveries, one of its orders may crash workers."""


class ToIndex(NamedTuple):
    """Orders that one transaction inserted, and its outbox row."""

    outbox_id: int
    orders: Sequence[StoredOrder]
    origin: tracing.Origin | None = None


class Redelivered(NamedTuple):
    """Outcome of redelivered messages."""

    to_index: Sequence[ToIndex]
    deadly: frozenset[str]
    """Names of the messages left out because workers crashed on them."""


class _Record(Orders, Attempts, Protocol):
    """The ports needed of the record."""


class PersistFlow:
    """Persists batches from the queue, the sweeper, or a replay."""

    def __init__(self, record: _Record, cache: Cache, clock: Clock) -> None:
        self._record = record
        self._cache = cache
        self._clock = clock
        self._suspects = Suspects(record)
        self._refusals = Refusals()
        self._samples = 0

    async def persist(self, batch: Sequence[AcceptedOrder], source: str) -> Sequence[ToIndex]:
        """Persist whole units and clean their entries; return the orders to index.

        When it returns, every order of the batch is in the record or in the dead letters.

        Raises:
            UnavailableError: the record is away and nothing was done; persist the batch again.
            UnknownOutcomeError: likewise, but some of it may be done.
        """
        async with self._suspects.together():
            return await self._persist(batch, source)

    async def persist_suspect(
        self, unit: Sequence[AcceptedOrder], source: str
    ) -> Sequence[ToIndex]:
        """Persist a unit that may crash this process, alone; bury it after too many crashes.

        Raises as `persist` does.
        """
        async with self._suspects.alone(), self._suspects.attempt(str(unit[0].unit_id)) as deaths:
            if deaths:
                _log.warning("suspect_attempted", unit_id=unit[0].unit_id, deaths=deaths)
            if deaths < DEATHS_MAX:
                return await self._persist(unit, source)
            # Its last worker may have crashed after the commit, or after the burial.
            for condemned in await self.pass_over([unit]):
                await self._condemn(condemned, f"{deaths} workers died of it")
            return []

    async def persist_redelivered(
        self, messages: Mapping[str, Sequence[AcceptedOrder]], source: str
    ) -> Redelivered:
        """Persist redelivered messages, except those that workers crashed on.

        Each message has a stable name. Raises as `persist` does.
        """
        async with self._suspects.alone():
            deadly = await self._suspects.deadly(list(messages))
            rest = [name for name in messages if name not in deadly]
            if not rest:
                return Redelivered([], deadly)
            async with self._suspects.attempts(rest):
                batch = [one for name in rest for one in messages[name]]
                return Redelivered(await self._persist(batch, source), deadly)

    async def forget_deadly(self, names: Collection[str]) -> None:
        """Forget messages that workers crashed on, once every unit of them is settled.

        Raises as `persist` does.
        """
        await self._record.end_attempts(sorted(names))

    async def persist_swept(self, batch: Sequence[AcceptedOrder]) -> Sequence[ToIndex]:
        """Persist the orders that a sweep found; unit by unit if earlier sweeps crashed.

        Raises as `persist` does.
        """
        async with self._suspects.attempt(SWEEP) as deaths:
            if deaths < SWEEPS_DIED_MAX:
                return await self.persist(batch, SWEEP)
            to_index: list[ToIndex] = []
            for unit in await self.pass_over(whole_units(batch)):
                to_index += await self.persist_suspect(unit, SWEEP)
            return to_index

    async def pass_over(
        self, units: Sequence[Sequence[AcceptedOrder]]
    ) -> Sequence[Sequence[AcceptedOrder]]:
        """Settle units whose fate is already committed; return the others.

        Raises:
            UnavailableError: the record is away.
        """
        found = await self._record.find([one.order.id for unit in units for one in unit])
        left, settled = [], []
        for unit in units:
            if all(_is_row(one, found) for one in unit):
                for one in unit:
                    row = found.orders[one.order.id]
                    settled.append(Settled(EntryState.CLEAN, row.accepted(), _unlike(one, row)))
            elif all(_is_dead(one, found) for one in unit):
                settled += [Settled(EntryState.DEAD, one) for one in unit]
            else:
                left.append(unit)
        if settled:
            await self._settle(settled)
        return left

    async def _persist(self, batch: Sequence[AcceptedOrder], source: str) -> Sequence[ToIndex]:
        if not batch:
            return []
        attempt = _Attempt(source, self._refusals.taken)
        try:
            await self._try(batch, attempt)
        except UnavailableError as error:
            if attempt.is_done_in_part:
                raise UnknownOutcomeError(f"done in part: {error}") from error
            raise
        return attempt.to_index

    async def _try(self, batch: Sequence[AcceptedOrder], attempt: "_Attempt") -> None:
        started = self._clock.monotonic()
        try:
            persisted = await self._record.persist(batch)
        except (PoisonError, UnexplainedError) as error:
            await self._isolate(batch, attempt, error)
            return
        if persisted.inserted:
            attempt.is_done_in_part = True
            self._refusals.taken += 1
        PERSIST_SECONDS.observe(self._clock.monotonic() - started)
        PERSIST_ORDERS.observe(len(batch))
        PERSISTED.labels(attempt.source).inc(len(persisted.inserted))
        settled = [
            Settled(EntryState.CLEAN, row.accepted(), _unlike(one, row))
            for one in batch
            if (row := persisted.stored.get(one.order.id)) is not None
        ]
        if persisted.conflicts:
            settled += await self._bury_conflicts(batch, persisted)
        await self._settle(settled)
        attempt.to_index += self._to_index(persisted)

    async def bury_unreadable(self, rejects: Sequence[codec.Reject]) -> None:
        """Write dead letters for message items that no worker can read."""
        letters = [
            DeadLetter(r.order_id, r.unit_id, r.payload, r.reason, Stage.DECODE, attempts=1)
            for r in rejects
        ]
        await bury(self._record, letters)

    def _to_index(self, persisted: Persisted) -> Sequence[ToIndex]:
        if persisted.outbox_id is None:
            return []
        orders = list(persisted.stored.values())
        if len(persisted.inserted) < len(orders):
            orders = [row for row in orders if row.order.id in persisted.inserted]
        PERSIST_LAG_SECONDS.observe_all(
            [max((row.persisted_at - row.accepted_at).total_seconds(), 0.0) for row in orders]
        )
        return [ToIndex(persisted.outbox_id, orders, tracing.current())]

    async def _isolate(
        self,
        batch: Sequence[AcceptedOrder],
        attempt: "_Attempt",
        error: PoisonError | UnexplainedError,
    ) -> None:
        units = whole_units(batch)
        is_certain = isinstance(error, PoisonError) or attempt.source == REPLAY
        if len(units) == 1:
            unit_id = units[0][0].unit_id
            if not is_certain and not self._refusals.is_at_fault(unit_id, attempt.taken_before):
                raise error
            await self._condemn(units[0], str(error))
            attempt.is_done_in_part = True
            return
        if not is_certain and self._refusals.taken == attempt.taken_before:
            done = await self._persist_any(units, attempt)
            units = [unit for unit in units if unit is not done]
        refusal: UnexplainedError | None = None
        middle = len(units) // 2
        for half in filter(None, (units[:middle], units[middle:])):
            try:
                await self._try([one for unit in half for one in unit], attempt)
            except UnexplainedError as refused:
                refusal = refused  # the outbox holds the orders to index
        if refusal is not None:
            raise refusal

    async def _persist_any(
        self, units: Sequence[Sequence[AcceptedOrder]], attempt: "_Attempt"
    ) -> Sequence[AcceptedOrder]:
        """Persist or condemn one of the units; return which.

        Tries units from all over the batch, and others in the next attempt.

        Raises:
            UnexplainedError: the record refuses each unit tried.
        """
        refusal: UnexplainedError | None = None
        step = -(-len(units) // SAMPLE_UNITS)
        self._samples += 1
        for unit in units[self._samples % step :: step]:
            try:
                await self._try(unit, attempt)
            except UnexplainedError as refused:
                refusal = refused
            else:
                return unit
        assert refusal is not None  # noqa: S101  there are units
        raise refusal

    async def _condemn(self, unit: Sequence[AcceptedOrder], reason: str) -> None:
        await self.bury(unit, reason)
        await self._settle([Settled(EntryState.DEAD, accepted) for accepted in unit])

    async def _bury_conflicts(
        self, batch: Sequence[AcceptedOrder], persisted: Persisted
    ) -> list[Settled]:
        """Bury units with a member whose id is taken; return the new state of their entries."""
        settled = []
        for unit in whole_units(batch):
            taken = [one.order.id for one in unit if one.order.id in persisted.conflicts]
            if not taken or _is_the_stored_one(unit, persisted):
                continue
            which = "this id" if len(unit) == 1 else taken[0]  # one reason for all, for grouping
            await self.bury(unit, f"the record holds another order under {which}")
            for accepted in unit:
                row = persisted.conflicts.get(accepted.order.id)
                settled.append(
                    Settled(EntryState.DEAD, accepted)
                    if row is None
                    else Settled(EntryState.CLEAN, row.accepted(), accepted)
                )
        return settled

    async def bury(self, unit: Sequence[AcceptedOrder], reason: str) -> None:
        """Write dead letters for orders with dead-lettered entries, or entries about to be.

        Raises as `persist` does.
        """
        letters = [letter_of(accepted, reason, Stage.PERSIST) for accepted in unit]
        await bury(self._record, letters)

    async def _settle(self, settled: Sequence[Settled]) -> None:
        try:
            await self._cache.settle(settled)
        except PolyglotError as error:
            # A failed settle blocks nothing: the entries stay dirty and the sweeper cleans them.
            _log.warning("settle_failed", orders=len(settled), error=str(error))


class _Attempt:
    """One call to persist, down to the units that its batch is divided into."""

    def __init__(self, source: str, taken_before: int) -> None:
        self.source = source
        self.taken_before = taken_before
        self.to_index: list[ToIndex] = []
        self.is_done_in_part = False


def _unlike(accepted: AcceptedOrder, row: StoredOrder) -> AcceptedOrder | None:
    """Return the order if its row differs: a retry has another `created_at`."""
    return accepted if accepted.order is not row.order and accepted.order != row.order else None


def _is_row(accepted: AcceptedOrder, found: Found) -> bool:
    row = found.orders.get(accepted.order.id)
    return row is not None and accepted.agrees_with(row.order)


def _is_dead(accepted: AcceptedOrder, found: Found) -> bool:
    dead = found.dead.get(accepted.order.id)
    return dead is not None and dead.letter.payload == payload_of(accepted)


def _is_the_stored_one(unit: Sequence[AcceptedOrder], persisted: Persisted) -> bool:
    """Return whether this unit agrees with the record and another one of the batch does not."""
    return all(
        (row := persisted.stored.get(one.order.id) or persisted.conflicts.get(one.order.id))
        is not None
        and one.agrees_with(row.order)
        for one in unit
    )
