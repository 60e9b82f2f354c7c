"""The cache epoch: how a 404 can be certain although a cache may be emptied or bypassed.

PostgreSQL holds the epoch, the cache holds a copy. A reader says 404 only if it read both and they
are equal. Whoever accepts an order without the cache raises the epoch first, so that the copy no
longer counts; a wiped cache has no copy at all. The cache is then *cold*: hits and rows are served
as always, only "unknown" becomes 503.

```
         bypassed, wiped, or restarted without durability
  warm ---------------------------------------------------> cold
    ^                                                        |  token put into the cache
    |   the queue had nothing ready at every look for 60 s   |  (gone if it is wiped again)
    +----------- copy := epoch, if the token is there <------+
```

Invariant: only one worker at a time (advisory lock) ends a cold time.
"""

import uuid

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.ports import Cache, Clock, OrderStore, Queue
from polyglot_persistence.telemetry import logger

_log = logger("cold_cache")

MARK_INTERVAL_SECONDS = 1.0
"""A bypass that goes on raises the epoch this often."""


class ColdMark:
    """Raises the epoch on behalf of one process that accepts without the cache."""

    def __init__(self, store: OrderStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._marked_at = float("-inf")

    async def ensure(self) -> None:
        """Return once the epoch was raised within the last second.

        Raises:
            UnavailableError: it could not be; the caller must not accept without the cache.
        """
        asked_at = self._clock.monotonic()
        if asked_at - self._marked_at < MARK_INTERVAL_SECONDS:
            return
        epoch = await self._store.new_epoch()
        self._marked_at = asked_at
        _log.warning("cache_marked_cold", epoch=epoch)


async def start_warm_if_fresh(store: OrderStore, cache: Cache) -> None:
    """Give the cache the epoch's copy if this is the process that created the epoch."""
    epoch, created = await store.found_epoch()
    if created:
        await cache.set_epoch(epoch)


class Warming:
    """Ends a cold time; one `look` after another, by the one process that leads."""

    def __init__(
        self, store: OrderStore, cache: Cache, queue: Queue, clock: Clock, *, quiet_seconds: float
    ) -> None:
        self._store = store
        self._cache = cache
        self._queue = queue
        self._clock = clock
        self._quiet_seconds = quiet_seconds
        self._epoch: str | None = None
        self._token = ""
        self._quiet_since = 0.0

    async def look(self) -> bool:
        """Take one step and return whether the cache is warm now."""
        epoch, _ = await self._store.found_epoch()
        copy = (await self._cache.read([])).epoch
        if copy == epoch:
            self._epoch = None
            return True
        now = self._clock.monotonic()
        if epoch != self._epoch:
            await self._begin(epoch, now)
        if await self._queue_has_work():
            self._quiet_since = self._clock.monotonic()
        elif now - self._quiet_since >= self._quiet_seconds:
            if await self._cache.copy_epoch(epoch, self._token):
                _log.warning("cache_warm", epoch=epoch)
                self._epoch = None
                return True
            self._epoch = None  # wiped meanwhile: begin again
        return False

    async def _begin(self, epoch: str, now: float) -> None:
        self._token = uuid.uuid4().hex
        await self._cache.offer_token(self._token)
        self._epoch = epoch
        self._quiet_since = now
        _log.warning("cache_cold", epoch=epoch, quiet_seconds=self._quiet_seconds)

    async def _queue_has_work(self) -> bool:
        try:
            return await self._queue.ready() > 0
        except PolyglotError:
            return True  # an unreachable queue proves nothing
