"""State of the whole system at one moment, from the stores, for the gauges and the live page.

It is read from the stores and not counted by a process, so it covers all API and worker processes,
and survives restarts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.watch.health import Health, HealthFlow
from polyglot_persistence.ports.cache import Backlog, Cache
from polyglot_persistence.ports.queue import Queue
from polyglot_persistence.ports.record import Progress, Record

ANSWER_SECONDS_MAX = 2.0
"""The same as for a ping; the stores are read at the same time."""
DEAD_LETTERS_COUNTED_MAX = 10_000

_T = TypeVar("_T")


class SystemState(NamedTuple):
    """State of all stores; fields of a store that did not answer are None."""

    backlog: Backlog | None
    progress: Progress | None
    """Dead letters are counted up to `DEAD_LETTERS_COUNTED_MAX`."""
    queue_messages: int | None
    """Messages that no worker holds."""
    cold: bool | None
    """Whether the cache may lack accepted orders, so that an unknown id is answered 503."""
    health: Health


@dataclass
class SystemStateFlow:
    """Reads the stores."""

    cache: Cache
    queue: Queue
    record: Record
    health: HealthFlow

    async def look(self) -> SystemState:
        """Read every store once; it never raises. A store that is away costs 2 s."""
        return SystemState(
            *await asyncio.gather(
                _soon(self.cache.backlog),
                _soon(partial(self.record.progress, dead_letters_max=DEAD_LETTERS_COUNTED_MAX)),
                _soon(self.queue.ready),
                _soon(self._cold),
                self.health.check(),
            )
        )

    async def _cold(self) -> bool:
        # The copy first, as a reader does it: then it cannot be newer than the original.
        copy = (await self.cache.read([])).epoch
        return copy != (await self.record.find([])).epoch


def age_seconds(now: datetime, since: datetime | None) -> float:
    """Return the age; 0 if there is nothing, or if a store's clock is ahead of ours."""
    return 0.0 if since is None else max((now - since).total_seconds(), 0.0)


async def _soon(ask: Callable[[], Awaitable[_T]]) -> _T | None:
    """Query a store; None if it does not answer in time.

    Calls `ask` itself: a task that is canceled before its first step then makes no query, and
    leaves no coroutine that was never awaited.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            return await ask()
    except (PolyglotError, TimeoutError):
        return None
