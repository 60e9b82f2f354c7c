"""The first order that a process stores under a reign of the cache.

A failover reaches processes one after the other. Until a reader has left the former primary, it
misses the orders that the new one has, and the copy of the epoch there may still be valid.

Invariant: before a process acknowledges an order under a reign, no copy of another server counts:
the server itself is warm, or the epoch is raised. So that reader answers 503, never 404.
"""

import asyncio
from typing import Final

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.reading.cold_cache import ColdMark
from polyglot_persistence.ports.cache import Cache
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.telemetry import logger

_log = logger("reigns")

ATTEMPT_SECONDS_MAX: Final = 1.0
"""Maximum delay of a commit, and minimum time from a failed attempt to the next one."""


class Reigns:
    """The reigns under which one process has stored orders."""

    def __init__(self, cache: Cache, cold_mark: ColdMark, clock: Clock) -> None:
        self._cache = cache
        self._cold_mark = cold_mark
        self._clock = clock
        self._attempt = asyncio.Lock()
        self._failed_at = float("-inf")
        self.latest = ""
        """The last reign begun."""

    async def begin(self, reign: str) -> None:
        """Return once no copy of another server counts.

        Also returns if the record does not answer in time: then no reader answers 404 either. The
        next call tries again.
        """
        async with self._attempt:  # a concurrent batch must not be acknowledged earlier
            now = self._clock.monotonic()
            if reign == self.latest or now - self._failed_at < ATTEMPT_SECONDS_MAX:
                return
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS_MAX):
                    read = await self._cache.read([])
                    if read.has_rivals:
                        await self._cold_mark.begin_reign(read)
            except (PolyglotError, TimeoutError) as error:
                self._failed_at = self._clock.monotonic()
                _log.warning("reign_unmarked", error=repr(error))
            else:
                self.latest = read.reign

    async def look(self) -> None:
        """Begin the cache's present reign, also while no order comes in.

        An idle process that stored its first order much later would prolong a cold time.

        Raises:
            UnavailableError: the cache is away.
        """
        reign = (await self._cache.read([])).reign
        if reign != self.latest:
            await self.begin(reign)
