"""The sweeper's step: persist stale dirty entries straight from the cache.

An order that a queue lost, or never received, is still dirty in the cache. Entries older than the
queue's progress go to the persist flow itself, never back to the queue: a wiped queue heals, a
broker outage delays nothing, and a broker is not flooded while PostgreSQL is away.

Invariant: age is the time of acceptance, never `created_at`.
Invariant: sweeping early is harmless; persisting twice has the effect of once.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from polyglot_persistence.domain.entry import Entry
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.behind.persist import PersistFlow, ToIndex
from polyglot_persistence.ports.cache import Cache
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.queue import Queue
from polyglot_persistence.telemetry import logger

_log = logger("sweep")


STUCK_SECONDS = 60.0
"""After this long without a newer acknowledgment a worker no longer proves how far the queue is: it
may hold only messages of a newer version."""


class QueueProgress:
    """This worker's progress in the queue, by the time of acceptance."""

    def __init__(self) -> None:
        self.passed: datetime | None = None

    def acknowledged(self, accepted_at: datetime | None) -> None:
        """Note a message as done."""
        if accepted_at is not None and (self.passed is None or accepted_at > self.passed):
            self.passed = accepted_at


class SweepFlow:
    """Persists dirty orders that are older than the queue's progress."""

    def __init__(
        self,
        cache: Cache,
        queue: Queue,
        persist: PersistFlow,
        progress: QueueProgress,
        clock: Clock,
        *,
        age_seconds: float,
        batch_orders_max: int,
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._persist = persist
        self._progress = progress
        self._clock = clock
        self._age = timedelta(seconds=age_seconds)
        self._passed_at_last = progress.passed
        self._moved_at = clock.monotonic()
        self._batch_orders_max = batch_orders_max
        self._last: Sequence[Entry] = ()

    async def sweep(self) -> Sequence[ToIndex] | None:
        """Persist one batch of stale entries; return the orders to index, None if none is stale.

        Also returns None if nothing has changed since the last sweep: an entry written by another
        version stays dirty, for a worker of that version.

        Raises:
            UnavailableError: cache or record is away.
            UnknownOutcomeError: the record's answer was lost.
        """
        backlog = await self._cache.backlog()
        now = self._clock.now()
        oldest = backlog.oldest_accepted_at
        bound = now - self._age
        if oldest is None or oldest >= bound:
            return None
        passed = await self._passed(now)
        if passed is None:
            return None
        entries = await self._cache.dirty_before(min(bound, passed), self._batch_orders_max)
        if not entries:
            return None
        to_index = await self._persist.persist_swept([e.accepted for e in entries])
        _log.info("swept", orders=len(entries))
        is_stuck, self._last = entries == self._last, entries
        return None if is_stuck and not to_index else to_index

    async def _passed(self, now: datetime) -> datetime | None:
        try:
            ready = await self._queue.ready()
        except PolyglotError:
            return now  # unreachable: its messages will be redelivered and change nothing
        if self._progress.passed != self._passed_at_last:
            self._passed_at_last, self._moved_at = self._progress.passed, self._clock.monotonic()
        is_stuck = self._clock.monotonic() - self._moved_at > STUCK_SECONDS
        return now if ready == 0 or is_stuck else self._progress.passed
