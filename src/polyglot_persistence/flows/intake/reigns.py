"""The first order that a process stores under a reign of the cache.

A failover reaches processes one after the other. Until a reader has left the former primary, it
misses the orders that the new one has, and the copy of the epoch there may still be valid.

Invariant: before a process acknowledges an order under a reign, no copy of another server counts:
the server itself is warm, or the epoch is raised. So that reader answers 503, never 404. While the
record is away this cannot be done; it is required as long as a reader may be with a former primary.
"""

import asyncio
import contextlib
from typing import Final

from polyglot_persistence.errors import PolyglotError, UnknownOutcomeError
from polyglot_persistence.flows.reading.cold_cache import ColdMark
from polyglot_persistence.ports.cache import Cache
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.telemetry import logger

_log = logger("reigns")

FORMER_SECONDS_MAX: Final = 10.0
"""Every process has left a former primary by then, counted from when this one met the new one."""

PAUSE_SECONDS: Final = 1.0
"""Minimum time from a failed attempt to the next one."""


class Reigns:
    """The reigns under which one process has stored orders."""

    def __init__(self, cache: Cache, cold_mark: ColdMark, clock: Clock) -> None:
        self._cache = cache
        self._cold_mark = cold_mark
        self._clock = clock
        self._attempt = asyncio.Lock()
        self._met: str | None = None
        self._met_at = self._failed_at = float("-inf")
        self._old: str | None = None
        """The last reign met, if it could not begin for so long that no reader is elsewhere."""
        self.latest: str | None = None
        """The last reign begun. An empty one is of a connection that was renewed meanwhile."""

    async def begin(self, reign: str) -> None:
        """Return once no copy of another server counts, or no reader is with one any more.

        In the latter case at once, however long the record takes to answer: `look` goes on trying.

        Raises:
            UnknownOutcomeError: an order of this reign could be missed by a reader.
        """
        if reign != self._old:
            await self._try_to_begin(reign)

    async def _try_to_begin(self, reign: str) -> None:
        async with self._attempt:  # a concurrent batch must not be acknowledged earlier
            now = self._clock.monotonic()
            if reign != self._met:
                self._met, self._met_at, self._old = reign, now, None
            if reign == self.latest:
                return
            if now - self._failed_at >= PAUSE_SECONDS:
                try:
                    await self._make_the_only_one()
                except PolyglotError as error:
                    self._failed_at = self._clock.monotonic()
                    _log.warning("reign_unmarked", error=str(error))
                else:
                    self._old = None
                    return
            if now - self._met_at < FORMER_SECONDS_MAX:
                raise UnknownOutcomeError("stored, and a reader with a former cache could miss it")
            self._old = reign or None

    async def look(self) -> None:
        """Begin the cache's present reign, also while no order comes in.

        An idle process that stored its first order much later would prolong a cold time.

        Raises:
            UnavailableError: the cache is away.
        """
        reign = (await self._cache.read([])).reign
        if reign != self.latest:
            with contextlib.suppress(UnknownOutcomeError):  # the next look tries again
                await self._try_to_begin(reign)

    async def _make_the_only_one(self) -> None:
        try:
            read = await self._cache.read([])
        except PolyglotError:  # it has gone: after this no copy at all counts
            await self._cold_mark.ensure()
            return
        if read.has_rivals:
            await self._cold_mark.begin_reign(read)
        self.latest = read.reign
