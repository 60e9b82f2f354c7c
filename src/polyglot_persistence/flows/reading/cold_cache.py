"""Cold-cache detection: when the cache is known to be complete, so that a 404 is certain.

PostgreSQL holds the epoch, the cache holds a copy of it. A reader returns 404 only if it has read
both and they are equal. A cache with an equal copy is *warm*: each accepted order is in it, in the
record, or among the dead letters. Otherwise it is *cold*: hits and rows are served as always, and
an unknown order is 503.

```
         bypassed, emptied, restarted, failed over
  warm ---------------------------------------------------> cold
    ^                                                        |  a token is put into the cache
    |   the queue has passed everything from before          |  (gone if it is emptied, or if a
    +----------- copy := epoch, if the token is there <------+   worker was handed something back)
```

*Events that end the warm time.*

- The copy's name holds the *reign* of its server (`CacheRead.reign`). So it is out of reach after a
  restart, which may lose the end of a log or begin with a backup, and after a failover, which may
  lose unreplicated writes. A reader checks reign and copy again after it has read the record.
- A process that accepts while bypassing the cache raises the epoch before it publishes; when it
  answers, the last raise is at most a second old. A commit that took longer than
  `COMMIT_SECONDS_MAX` raises it too: the cache may have been emptied since it stored the orders.
- Before a process acknowledges its first order under a reign, no copy of another server counts: the
  server is warm, or the process raises the epoch (`ColdMark.begin_reign`). Otherwise a reader that
  has not left a former primary yet would miss orders that the new one has.
- The epoch names the timeline of PostgreSQL: a promoted standby that lacks the last epoch still has
  a different one.

*Proof that all earlier orders are persisted.* Let the token be stored at `t`. Every order that is
accepted and not in the cache then was published before `t + COMMIT_SECONDS_MAX`. After that, two
looks see no message ready; messages ready between them make no difference. An earlier message was
with a worker at the first look. At the last look it is persisted, or it was handed back:

- A worker that hands anything back first removes the token, or raises the epoch if it cannot.
- If a worker dies or stalls, the broker takes the message back. Then the message is ready, or
  another worker receives it for the second time and removes the token before it persists it or
  hands it back. So the time between the looks is the longest time for which a message can be
  neither ready nor received again (`Queue.unseen_seconds_max`).

Assumptions: a process leaves a former primary, or cannot write to it any more, before another
server can be warm (at least `COMMIT_SECONDS_MAX` after its promotion); the clock of a suspended
process keeps running (`Clock.monotonic`); among the workers that receive one message in turn, no
two die or stall in one quiet time.

Invariant: only one worker at a time (advisory lock) ends a cold time.
"""

import contextlib
import uuid
from typing import Final, NamedTuple, Protocol

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.ports.cache import Cache, CacheRead
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.epoch import CacheEpoch
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.ports.queue import Queue
from polyglot_persistence.telemetry import logger

_log = logger("cold_cache")

MARK_INTERVAL_SECONDS = 1.0
"""A continuing bypass raises the epoch this often."""

COMMIT_SECONDS_MAX = 10.0
"""Maximum time from a commit's script to its answer; beyond it the cache counts as bypassed. Cache
and queue have 2 and 3 seconds by default, and a mark takes up to one statement timeout."""

TIDY_SECONDS_MAX = 8.0
"""Maximum time from the end of a worker's hold time for a delivery until the queue has it back: to
cancel running work, to remove the token, and to close the channel."""

END_WARMING_SECONDS_MAX = 5.0
"""The share of that for removing the token, or raising the epoch."""

FOUNDER: Final = "founder"
"""The role of the one process that creates the epoch."""

FOUNDER_LOOK_SECONDS = 0.05
FOUNDER_SECONDS_MAX = 2.0
"""How long another process waits for the copy, which follows the epoch: a worker that looked in
between would begin a cold time."""

EPOCH_SECONDS_MAX = 10.0
"""How long another process waits for the epoch. A stalled founder delays it no longer: then the
epoch comes without a copy."""


class ColdMark:
    """Raises the epoch for one process that accepts without the cache."""

    def __init__(self, record: CacheEpoch, clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._marked_at = float("-inf")

    async def ensure(self) -> None:
        """Return once the epoch was raised within the last second.

        Raises:
            UnavailableError: it could not be; the caller must not accept without the cache.
            UnknownOutcomeError: likewise.
        """
        asked_at = self._clock.monotonic()
        if asked_at - self._marked_at < MARK_INTERVAL_SECONDS:
            return
        epoch = await self._record.new_epoch()
        self._marked_at = asked_at
        _log.warning("cache_marked_cold", epoch=epoch)

    async def begin_reign(self, read: CacheRead) -> None:
        """Return once no server but the one that was read counts as complete.

        If it is warm, no other one is: two servers never have copies of one epoch.

        Raises:
            UnavailableError: the record is away.
            UnknownOutcomeError: likewise.
        """
        if read.epoch is None or read.epoch != await self._record.epoch():
            await self.ensure()


class _Founding(CacheEpoch, Leadership, Protocol):
    """The ports that founding needs of the record."""


async def found_epoch(record: _Founding, cache: Cache, queue: Queue, clock: Clock) -> None:
    """Create the epoch if there is none, and the copy if nothing was accepted before.

    No worker takes a message before there is an epoch. So where this call creates it, every order
    accepted earlier is in the queue, or dirty in the cache. Orders accepted after the look are in
    the cache as long as the token is there.

    Raises:
        UnavailableError: the record is away.
        UnknownOutcomeError: likewise.
    """
    began_at = clock.monotonic()
    while (waited := clock.monotonic() - began_at) < EPOCH_SECONDS_MAX:
        async with record.lead(FOUNDER) as lead:
            if lead is not None:
                if await record.epoch() is None:
                    await _found_epoch(record, cache, queue)
                return
        if waited >= FOUNDER_SECONDS_MAX and await record.epoch() is not None:
            return
        await clock.sleep(FOUNDER_LOOK_SECONDS)
    await record.found_epoch()


async def _found_epoch(record: CacheEpoch, cache: Cache, queue: Queue) -> None:
    token = uuid.uuid4().hex
    reign = await _pristine_reign(cache, queue, token)
    epoch, is_created = await record.found_epoch()
    if reign and is_created:
        with contextlib.suppress(PolyglotError):  # the cache is cold then
            await cache.copy_epoch(epoch, token, reign)


async def _pristine_reign(cache: Cache, queue: Queue, token: str) -> str:
    """Return the reign of a cache that holds a token and nothing dirty, if the queue is empty."""
    try:
        await cache.begin_warming(token)
        read = await cache.read([])
        is_empty = (await cache.backlog()).orders == 0 and await queue.ready() == 0
        return read.reign if is_empty and await cache.reigns(read.reign, read.epoch) else ""
    except PolyglotError:
        return ""


async def end_warming(cache: Cache, record: CacheEpoch) -> None:
    """Restart the quiet time, since a message that may be unpersisted was handed back.

    Raises:
        UnavailableError: cache and record are away; the caller must not consume.
        UnknownOutcomeError: likewise.
    """
    try:
        await cache.end_warming()
    except PolyglotError:
        await record.new_epoch()


class _Round(NamedTuple):
    """One attempt to end a cold time."""

    epoch: str
    reign: str
    token: str
    began_at: float
    empty_at: float | None = None
    """When the first look that counts saw no message ready."""


class Warming:
    """Ends a cold time by successive calls of `look`, in the one process that leads."""

    def __init__(
        self,
        record: CacheEpoch,
        cache: Cache,
        queue: Queue,
        clock: Clock,
        *,
        quiet_seconds: float,
        hold_seconds_max: float,
    ) -> None:
        self._record = record
        self._cache = cache
        self._queue = queue
        self._clock = clock
        self._quiet_seconds = quiet_seconds
        self._unseen_seconds = queue.unseen_seconds_max(hold_seconds_max) + TIDY_SECONDS_MAX
        self._round: _Round | None = None

    async def look(self) -> bool:
        """Take one step and return whether the cache is warm now.

        Raises:
            UnavailableError: cache or record is away.
            UnknownOutcomeError: likewise.
        """
        epoch, _ = await self._record.found_epoch()
        read = await self._cache.read([])
        if not await self._cache.reigns(read.reign, read.epoch):
            self._round = None
            if read.epoch is not None:  # it may evict dirty entries, and be set back
                await self._cache.begin_warming(uuid.uuid4().hex)
            return False
        if read.epoch == epoch:
            self._round = None
            return True
        current = self._round
        if current is None or (current.epoch, current.reign) != (epoch, read.reign):
            await self._begin(read.reign)
            return False
        now = self._clock.monotonic()  # before the look, which may be late if this process stalls
        if not await self._is_queue_empty():
            return False
        if current.empty_at is None:
            if now - current.began_at >= COMMIT_SECONDS_MAX:  # and after this one
                self._round = current._replace(empty_at=self._clock.monotonic())
        elif (
            now - current.empty_at >= self._unseen_seconds
            and now - current.began_at >= self._quiet_seconds
        ):
            self._round = None  # the token is gone: begin again
            if await self._cache.copy_epoch(epoch, current.token, current.reign):
                _log.warning("cache_warm", epoch=epoch)
                return True
        return False

    async def _begin(self, reign: str) -> None:
        """Begin a wait for an epoch of this round: a server may come back with an older one."""
        epoch = await self._record.new_epoch()
        token = uuid.uuid4().hex
        await self._cache.begin_warming(token)
        if self._round is None:
            _log.warning("cache_cold", epoch=epoch)
        self._round = _Round(epoch, reign, token, self._clock.monotonic())

    async def _is_queue_empty(self) -> bool:
        try:
            return await self._queue.ready() == 0
        except PolyglotError:
            return False  # an unknown count proves nothing
