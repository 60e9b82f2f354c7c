r"""The write path's commit: one cache script and one confirmed message for a whole batch.

The outcomes of the two stores decide the answer to the clients of the batch:

| cache \ queue           | confirmed            | refused, not sent | unknown |
|-------------------------|----------------------|-------------------|---------|
| stored, safe            | accepted             | accepted          | accepted |
| stored, not safe        | accepted             | unknown           | unknown |
| refused, not sent       | cold mark, accepted  | refused           | unknown |
| unknown                 | cold mark, accepted  | unknown           | unknown |

*safe*: the cache is durable, and either has no replicas or all of them have confirmed. *refused* is
`UnavailableError` (503: nothing was stored and nothing will be), *unknown* is `UnknownOutcomeError`
(504). Nothing is ever undone. While both stores are healthy the answer waits for both; while a
breaker is open, its store gets no request. A commit that took longer than `COMMIT_SECONDS_MAX`
marks the cache cold before it is answered (see `cold_cache`), and so does the first one under a
reign of a cache that may have failed over (see `reigns`).

A unit with an identity of its own (idempotency key, given id) is published only after the cache
answered, as the entry that the cache returned, and not at all if that entry is clean or differs.
Otherwise a retry could reach the worker in another form than the stored one. A retry that finds its
entry dirty is published again only if the cache alone is not safe, and rarely: the first attempt
has published it, or the sweeper persists it.

Invariant: a batch never divides a unit.
Invariant: an entry that this version cannot read fails only the requests for it.
Invariant: canceling a caller cancels nothing; its unit is committed with the batch.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from polyglot_persistence import tracing
from polyglot_persistence.config.limits import CommitLimits
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import (
    PoisonError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
    refused,
)
from polyglot_persistence.flows.intake.reigns import Reigns
from polyglot_persistence.flows.reading.cold_cache import COMMIT_SECONDS_MAX, ColdMark
from polyglot_persistence.ports.cache import AcceptReply, Cache, PreparedOrder, Unit
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.queue import Message, Queue
from polyglot_persistence.runtime.batching import Batcher
from polyglot_persistence.runtime.breaker import Breaker
from polyglot_persistence.runtime.remembered import Remembered
from polyglot_persistence.telemetry import (
    ACCEPTED,
    ACCEPTED_ONE_COPY,
    BACKLOG_LIMIT_ORDERS,
    BACKLOG_ORDERS,
    COMMIT_ORDERS,
    COMMIT_SECONDS,
    REFUSED,
    WAITING_ORDERS,
    logger,
)

_log = logger("group_commit")

WATERMARK_RETRY_SECONDS = 5
"""Retry-After sent to clients above a watermark: a backlog does not shrink in one second."""

REPUBLISH_SECONDS = 60.0
"""An entry that retries find dirty is published about once in this time, if the cache alone is not
safe."""

IN_FLIGHT_MAX = 2
"""Concurrent batches; a second one hides a slow round trip. More measured the same."""


class _Waiting(NamedTuple):
    units: Sequence[Unit]
    """A single unit if it has an identity of its own."""
    has_identity: bool
    done: "asyncio.Future[Sequence[Entry]]"
    origin: tracing.Origin | None


class _Outcome(NamedTuple):
    """Result for the callers of a batch: an error or None by kind of unit, and earlier entries."""

    free: PolyglotError | None
    identified: PolyglotError | None
    found: "_Found"


_Name: TypeAlias = tuple[UUID, int, datetime]
"""A unit's first id, number of orders (a bulk's first order may be asked for alone) and acceptance
(once discarded, an order may be accepted anew)."""

_Found: TypeAlias = dict[UUID, Entry | None]
"""The entries stored before a batch; None for one that this version cannot read."""


class GroupCommit:
    """Commits units in batches."""

    def __init__(
        self,
        cache: Cache,
        queue: Queue,
        *,
        cache_breaker: Breaker,
        queue_breaker: Breaker,
        cold_mark: ColdMark,
        reigns: Reigns,
        clock: Clock,
        limits: CommitLimits,
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._cache_breaker = cache_breaker
        self._queue_breaker = queue_breaker
        self._cold_mark = cold_mark
        self._clock = clock
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._backlog_over = ""
        self._queue_over = ""
        self._published: Remembered[_Name, bool] = Remembered(
            clock, entries_max=limits.dirty_orders_max, seconds=REPUBLISH_SECONDS
        )
        self._reigns = reigns
        self.relies_on_queue = False
        """Whether the cache is not durable, so that only the queue's copy counts."""
        self._batcher: Batcher[_Waiting] = Batcher(
            self._commit,
            batch_max=limits.commit_orders_max,
            waiting_max=limits.waiting_orders_max,
            in_flight_max=IN_FLIGHT_MAX,
        )
        BACKLOG_LIMIT_ORDERS.set(limits.dirty_orders_max)
        WAITING_ORDERS.set_function(lambda: self._batcher.waiting)

    def submit(self, *units: Unit, has_identity: bool) -> "asyncio.Future[Sequence[Entry]]":
        """Take units into the next batch, all or none; resolves once they are durable.

        Units without an identity share one future, which costs a third of one future each. A unit
        with an identity goes alone: the result holds the entries stored before (of all members or
        of some); then nothing new was stored.

        Raises:
            UnavailableError: at once, above a watermark; or through the future (503).
            UnknownOutcomeError: through the future (504).
        """
        orders = _count(units)
        if over := self._backlog_over or self._queue_over:
            REFUSED.labels("watermark").inc(orders)
            raise refused(over, retry_after_seconds=WATERMARK_RETRY_SECONDS)
        done: asyncio.Future[Sequence[Entry]] = self._loop.create_future()
        try:
            self._batcher.add(_Waiting(units, has_identity, done, tracing.current()), orders)
        except UnavailableError:
            REFUSED.labels("waiting").inc(orders)
            raise
        return done

    def backlog_seen(self, orders: int | None) -> None:
        """Set the bound from the dirty backlog, which shrinks without a commit. None: no bound."""
        limit = self._limits.dirty_orders_max
        if orders is not None:
            BACKLOG_ORDERS.set(orders)
        self._backlog_over = (
            f"{orders} orders wait to be persisted, the limit is {limit}"
            if orders is not None and orders >= limit
            else ""
        )

    def queue_depth_seen(self, messages: int | None) -> None:
        """Set the bound from the queue's backlog. None: no bound, the cache holds it all."""
        limit = self._limits.queue_messages_max
        self._queue_over = (
            f"{messages} messages wait in the queue, the limit is {limit}"
            if messages is not None and messages >= limit
            else ""
        )

    async def drain(self) -> None:
        """Return once every submitted unit has its answer."""
        await self._batcher.drain()

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        attributes = {"polyglot.batch.units": len(batch)}
        with tracing.batch_span("commit orders", [one.origin for one in batch], attributes):
            await self._commit_batch(batch)

    async def _commit_batch(self, batch: Sequence[_Waiting]) -> None:
        started = self._clock.monotonic()
        free = [unit for waiting in batch if not waiting.has_identity for unit in waiting.units]
        identified = [unit for waiting in batch if waiting.has_identity for unit in waiting.units]
        try:
            if self._cache_breaker.is_open:
                away = UnavailableError("the cache is away")
                error = await self._queue_alone([*free, *identified], away)
                outcome = _Outcome(error, error, {})
            else:
                outcome = await self._commit_to_both(free, identified)
                if self._clock.monotonic() - started > COMMIT_SECONDS_MAX:
                    outcome = await self._too_late(outcome)
            _settle(batch, outcome)
        except BaseException as unexpected:
            for waiting in batch:
                _fail(waiting, UnknownOutcomeError(f"the commit failed: {unexpected!r}"))
            raise
        COMMIT_SECONDS.observe(self._clock.monotonic() - started)
        COMMIT_ORDERS.observe(_count([*free, *identified]))

    async def _commit_to_both(self, free: Sequence[Unit], identified: Sequence[Unit]) -> _Outcome:
        publishing = asyncio.ensure_future(self._publish(free))
        try:
            reply = await self._accept([*free, *identified])
        finally:
            published = await publishing
        if not isinstance(reply, AcceptReply):
            return _Outcome(
                await self._queued(free, published, reply) if free else None,
                await self._queue_alone(identified, reply) if identified else None,
                {},
            )
        self.backlog_seen(reply.backlog)
        self.relies_on_queue = not reply.durable
        found = {order_id: _readable(order_id, raw) for order_id, raw in reply.found.items()}
        published_late = None
        if to_publish := await self._to_publish(identified, found, reply):
            published_late = await self._publish(list(to_publish.values()))
            if published_late is None:
                for name in to_publish:
                    if name[0] in found:  # only retries: there are few of them
                        self._published.remember(name, value=True)
        missed = await self._begin_reign(reply.reign)
        return _Outcome(
            missed or await self._cached(free, published, reply),
            missed or await self._cached(identified, published_late, reply),
            found,
        )

    async def _begin_reign(self, reign: str) -> PolyglotError | None:
        if reign != self._reigns.latest:
            try:
                await self._reigns.begin(reign)
            except UnknownOutcomeError as error:
                return error
        return None

    async def _to_publish(
        self, units: Sequence[Unit], found: _Found, reply: AcceptReply
    ) -> dict[_Name, Unit]:
        """Return new units unchanged, and dirty ones as the cache holds them if they need it."""
        new, dirty = ({_name(unit): unit for unit in some} for some in _as_stored(units, found))
        again = {
            name: unit
            for name, unit in dirty.items()
            if name not in new and not self._published.get(name)
        }
        if again and not await self._is_safe(reply):
            return new | again
        return new

    async def _is_safe(self, reply: AcceptReply) -> bool:
        """Return whether the cached orders outlive their server without the queue."""
        if not reply.durable:
            return False
        try:
            return await self._cache.survives_failover(reply.reign)
        except PolyglotError as error:
            self._cache_breaker.failed(error)
            return False

    async def _cached(
        self, units: Sequence[Unit], queue_error: PolyglotError | None, reply: AcceptReply
    ) -> PolyglotError | None:
        if queue_error is None or not units:
            return None
        if await self._is_safe(reply):
            ACCEPTED_ONE_COPY.labels("queue").inc(_count(units))
            return None
        return UnknownOutcomeError(f"cached, and not safe there alone; queue: {queue_error}")

    async def _too_late(self, outcome: _Outcome) -> _Outcome:
        """Mark the cache cold: it may have been emptied and warmed again since the script ran."""
        if None not in outcome[:2]:
            return outcome
        try:
            await self._cold_mark.ensure()
        except PolyglotError as error:
            late = UnknownOutcomeError(f"stored, but too long ago to be found for certain: {error}")
            return _Outcome(outcome.free or late, outcome.identified or late, outcome.found)
        return outcome

    async def _queue_alone(
        self, units: Sequence[Unit], cache_error: PolyglotError
    ) -> PolyglotError | None:
        """Publish unchanged, once the epoch shows readers that the cache may miss these orders."""
        if self._queue_breaker.is_open:  # nothing will be published: no mark is needed
            return _neither(cache_error, UnavailableError("the queue is away"))
        try:
            await self._cold_mark.ensure()
        except PolyglotError as error:
            return _neither(cache_error, UnavailableError(f"not sent, no cold mark: {error}"))
        return await self._queued(units, await self._publish(units), cache_error)

    async def _queued(
        self,
        units: Sequence[Unit],
        queue_error: PolyglotError | None,
        cache_error: PolyglotError,
    ) -> PolyglotError | None:
        if queue_error is not None:
            return _neither(cache_error, queue_error)
        try:
            await self._cold_mark.ensure()
        except PolyglotError as error:
            return UnknownOutcomeError(f"queued, but a reader could miss it: {error}")
        ACCEPTED_ONE_COPY.labels("cache").inc(_count(units))
        return None

    async def _accept(self, units: Sequence[Unit]) -> AcceptReply | PolyglotError:
        try:
            return await self._cache.accept(units)
        except (UnavailableError, UnknownOutcomeError) as error:
            self._cache_breaker.failed(error)
            return error

    async def _publish(self, units: Sequence[Unit]) -> PolyglotError | None:
        if not units:
            return None
        if self._queue_breaker.is_open:
            return UnavailableError("the queue is away")
        message = Message(
            codec.encode_message([unit.members for unit in units]),
            _count(units),
            min(unit.members[0].accepted.accepted_at for unit in units),
            codec.SCHEMA_VERSION,
        )
        try:
            await self._queue.publish(message)
        except (UnavailableError, UnknownOutcomeError) as error:
            self._queue_breaker.failed(error)
            return error
        return None


def _name(unit: Unit) -> _Name:
    return unit.first_id, len(unit.members), unit.members[0].accepted.accepted_at


def _count(units: Sequence[Unit]) -> int:
    return sum(len(unit.members) for unit in units)


def _neither(cache_error: PolyglotError, queue_error: PolyglotError) -> PolyglotError:
    errors = (cache_error, queue_error)
    if all(isinstance(error, UnavailableError) for error in errors):
        return UnavailableError(
            f"cache: {cache_error}; queue: {queue_error}",
            public="neither the cache nor the queue can hold an order now",
        )
    return UnknownOutcomeError(f"cache: {cache_error}; queue: {queue_error}")


def _readable(order_id: UUID, raw: bytes) -> Entry | None:
    try:
        return codec.decode_entry(raw)
    except PoisonError as error:
        _log.error("entry_unreadable", order_id=order_id, reason=str(error))
        return None


def _as_stored(units: Sequence[Unit], found: _Found) -> tuple[list[Unit], list[Unit]]:
    """Return new units unchanged, and dirty units as the cache holds them."""
    new, dirty = [], []
    stored: set[UUID] = set()
    for unit in units:
        ids = unit.ids
        if _is_new(unit, found, stored):
            new.append(unit)
            continue
        members = [
            _asked_for(unit, entry)
            for member, order_id in zip(unit.members, ids, strict=True)
            if (entry := found.get(order_id)) is not None
            and entry.state is EntryState.DIRTY
            and (len(unit.members) == 1 or _is_of(unit, entry))
            and member.accepted.agrees_with(entry.accepted.order)
        ]
        if len(members) == len(unit.members):
            dirty.append(Unit(members))
    return new, dirty


def _is_new(unit: Unit, found: _Found, stored: set[UUID]) -> bool:
    """Return whether this batch stored the unit; `stored` collects the ids of those before it.

    If an identity comes twice in a batch, the second unit finds the first's orders. By its id
    alone, the first would seem to find them, too.
    """
    ids = unit.ids
    there = [found[order_id] for order_id in ids if order_id in found]
    # A later unit of the same key may be shorter, and then finds a part of this one.
    own = [
        Entry(EntryState.DIRTY, accepted, body)
        for accepted, body in unit.members
        if accepted.order.id in found
    ]
    is_first = stored.isdisjoint(ids)
    stored.update(ids)
    return not there or (is_first and there == own)


def _is_of(unit: Unit, entry: Entry) -> bool:
    accepted, there = unit.members[0].accepted, entry.accepted
    return (accepted.unit_id, accepted.unit_size) == (there.unit_id, there.unit_size)


def _asked_for(unit: Unit, entry: Entry) -> PreparedOrder:
    """Return a dirty order with its unit; or alone, if the request was for it alone."""
    there = entry.accepted
    if len(unit.members) == 1 and there.unit_size > 1:
        there = AcceptedOrder(
            there.order, there.accepted_at, there.order.id, created_at_given=there.created_at_given
        )
    return PreparedOrder(there, entry.body)


def _settle(batch: Sequence[_Waiting], outcome: _Outcome) -> None:
    stored: set[UUID] = set()
    accepted = 0
    for waiting in batch:
        error = outcome.identified if waiting.has_identity else outcome.free
        entries: Sequence[Entry] = ()
        if error is None and waiting.has_identity:
            try:
                entries = _before(waiting, outcome.found, stored)
            except UnavailableError as unreadable:
                error = unreadable
        if error is not None:
            _fail(waiting, error)
            continue
        if not entries:
            accepted += _count(waiting.units)
        if not waiting.done.done():
            waiting.done.set_result(entries)
    ACCEPTED.inc(accepted)


def _before(waiting: _Waiting, found: _Found, stored: set[UUID]) -> Sequence[Entry]:
    """Return the entries stored before this unit.

    Raises:
        UnavailableError: one of the entries is of a newer version.
    """
    (unit,) = waiting.units
    if _is_new(unit, found, stored):
        return ()
    there = [found[order_id] for order_id in unit.ids if order_id in found]
    entries = [entry for entry in there if entry is not None]
    if len(entries) < len(there):
        raise refused("a newer version holds an order under this key or id")
    return entries


def _fail(waiting: _Waiting, error: PolyglotError) -> None:
    if waiting.done.done():
        return
    reason = "unavailable" if isinstance(error, UnavailableError) else "unknown"
    REFUSED.labels(reason).inc(_count(waiting.units))
    waiting.done.set_exception(error)
    waiting.done.exception()  # avoids a warning for a caller that has left
