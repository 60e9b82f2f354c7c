"""Healing after a failover or a restore of the record: what it lost is persisted again at once.

A promoted standby may lack the last commits of its primary, and a restored backup lacks more. The
cache still holds those orders: clean entries within their time to live, dead-lettered ones, and
dirty ones, which are persisted anyway.

```
  the record's position follows the one kept in the cache --> keep it (each look)
  it does not --> raise the epoch --> compare and repair every entry at once
                  --> again, `again_after_seconds` later --> keep it
```

The second comparison finds what a process persisted on the former primary, or settled in the cache,
while the first one ran.

The position is kept in the cache, beside the entries that it is about. So it outlives a restart of
all workers and any loss of the record's latest rows, and it is lost only with entries that could
not be healed. A cache without a position is compared once.

Invariant: a position is kept only after the comparison with it reached every entry. So a crash, an
outage or another failover in between repeats the comparison, whose every step is idempotent.
"""

from typing import NamedTuple, Protocol

from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.domain.history import Position
from polyglot_persistence.flows.watch.audit_cache import CacheAudit
from polyglot_persistence.flows.watch.audit_tally import Pace, Tally
from polyglot_persistence.ports.audit import CacheContents
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.epoch import CacheEpoch
from polyglot_persistence.ports.history import RecordHistory
from polyglot_persistence.telemetry import RECORD_CHANGES, logger

_log = logger("heal")


class _Record(RecordHistory, CacheEpoch, Protocol):
    """The ports needed of the record."""


class _First(NamedTuple):
    """A first comparison after a loss."""

    compared: Position
    branch: str
    ended_at: float


class HealFlow:
    """Persists again what the record lost and the cache holds, by successive calls of `look`.

    `again_after_seconds` is the time after which no process settles what it persisted on a former
    primary.
    """

    def __init__(
        self,
        record: _Record,
        contents: CacheContents,
        cache: CacheAudit,
        clock: Clock,
        *,
        again_after_seconds: float,
    ) -> None:
        self._record = record
        self._contents = contents
        self._cache = cache
        self._clock = clock
        self._again_after_seconds = again_after_seconds
        self._first: _First | None = None
        self._reached: Position | None = None
        """All entries were compared to it, and the cache has not taken it yet: it is full."""

    async def look(self, pace: Pace) -> None:
        """Compare every cached order with the record, if that may have lost any.

        `pace` may end the comparison early; it begins anew at the next look.

        Raises:
            UnavailableError: cache or record is away; look again.
            UnknownOutcomeError: likewise.
        """
        position = await self._record.position()
        compared = self._reached or await self._contents.compared_to()
        if compared is None:
            if not await self._compare(pace):
                return
        elif not position.follows(compared):
            if not await self._heal(position, compared, pace):
                return
        elif position == compared and self._reached is None:
            return
        self._reached = position
        await self._contents.keep_compared_to(position)
        self._reached = None

    async def _heal(self, position: Position, compared: Position, pace: Pace) -> bool:
        """Take one of the two comparisons, if it is due; return whether that was the last."""
        first = self._first
        is_first = first is None or first[:2] != (compared, position.branch)
        if first is not None and not is_first:
            if self._clock.monotonic() - first.ended_at < self._again_after_seconds:
                return False
        else:
            _log.warning("record_changed", position=position.encode(), before=compared.encode())
            # The epoch may be as old as the record: a 404 based on it may be wrong.
            await self._record.new_epoch()
        if not await self._compare(pace):
            return False
        if is_first:
            self._first = _First(compared, position.branch, self._clock.monotonic())
            return False
        self._first = None
        RECORD_CHANGES.inc()
        return True

    async def _compare(self, pace: Pace) -> bool:
        """Compare and repair every entry; return whether all were reached."""
        started = self._clock.monotonic()
        is_whole = True

        async def paced(entries: int) -> bool:
            nonlocal is_whole
            is_whole = await pace(entries)
            return is_whole

        tally = Tally()
        entries = await self._cache.run(tally, paced, repair=True)
        _log.info(
            "record_compared",
            entries=entries,
            orders_persisted=tally.repaired[Drift.LOST_ORDER],
            whole=is_whole,
            seconds=round(self._clock.monotonic() - started, 3),
        )
        return is_whole
