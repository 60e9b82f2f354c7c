"""Figures of the live page: the whole system, read from the stores about once a second.

Invariant: the stores are read only while a page is watching, and once for all watchers.
Invariant: memory is bounded: the figures of the last minutes, and an event for each watcher.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.watch.health import Health
from polyglot_persistence.flows.watch.system_state import SystemState, SystemStateFlow, age_seconds
from polyglot_persistence.ports.clock import Clock

INTERVAL_SECONDS = 1.0
FIGURES_KEPT = 300
RATE_SECONDS = 3.5
"""A rate is the mean over this period: orders move in batches of a thousand and more."""
RATE_SECONDS_MIN = 0.5


class Figures(NamedTuple):
    """The system at one moment; fields of a store that did not answer are None."""

    at: datetime
    accepted: int | None
    """Orders ever accepted and not dead-lettered: the persisted and the dirty."""
    persisted: int | None
    indexed: int | None
    """Orders searchable: the persisted that are not in the outbox."""
    accepted_per_second: float | None
    persisted_per_second: float | None
    indexed_per_second: float | None
    dirty: int | None
    dirty_age_seconds: float | None
    """Age of the oldest; 0 if there is none."""
    queue_messages: int | None
    """Messages that no worker holds."""
    outbox: int | None
    outbox_age_seconds: float | None
    dead_letters: int | None
    """Counted up to `system_state.DEAD_LETTERS_COUNTED_MAX`."""
    latest_dead_letter: int | None
    view_refreshed_at: datetime | None
    cold: bool | None
    """Whether the cache may lack accepted orders, so that an unknown id is answered 503."""


class LiveFlow:
    """Samples the stores for all watchers."""

    def __init__(self, state: SystemStateFlow, clock: Clock, *, watchers_max: int) -> None:
        self._state = state
        self._clock = clock
        self._watchers_max = watchers_max
        self._watchers: set[asyncio.Event] = set()
        self._looking = asyncio.Lock()
        self._kept: deque[Figures] = deque(maxlen=FIGURES_KEPT)
        self.health: Health | None = None
        """From the latest look."""

    def watch(self) -> asyncio.Event:
        """Begin to watch; return an event that is set whenever there are new figures.

        Raises:
            UnavailableError: the maximum number of watchers is reached.
        """
        if len(self._watchers) >= self._watchers_max:
            raise UnavailableError(f"{self._watchers_max} pages are watching already")
        news = asyncio.Event()
        self._watchers.add(news)
        return news

    def unwatch(self, news: asyncio.Event) -> None:
        """End watching."""
        self._watchers.discard(news)

    def since(self, moment: datetime | None) -> Sequence[Figures]:
        """Return the kept figures after a moment, or all, the oldest first."""
        return [figures for figures in self._kept if moment is None or figures.at > moment]

    async def step(self) -> None:
        """Look once if anybody watches; the caller repeats it every `INTERVAL_SECONDS`."""
        if self._watchers:
            await self.look()

    async def look(self) -> None:
        """Read every store, unless the latest look is fresh. A store that is away costs 2 s."""
        async with self._looking:
            now = self._clock.now()
            latest = self._kept[-1].at if self._kept else None
            if latest is not None and (now - latest).total_seconds() < INTERVAL_SECONDS / 2:
                return
            state = await self._state.look()
            self.health = state.health
            self._kept.append(self._figures(now, state))
        for news in self._watchers:
            news.set()

    def _figures(self, now: datetime, state: SystemState) -> Figures:
        backlog, progress = state.backlog, state.progress
        accepted = progress.persisted + backlog.orders if progress and backlog else None
        persisted = progress.persisted if progress else None
        indexed = progress.persisted - progress.outbox_orders if progress else None
        ages = [(now - kept.at).total_seconds() for kept in self._kept]
        in_reach = [
            kept
            for kept, age in zip(self._kept, ages, strict=True)
            if RATE_SECONDS_MIN <= age <= RATE_SECONDS
        ]
        return Figures(
            now,
            accepted,
            persisted,
            indexed,
            _rate(now, accepted, [(kept.at, kept.accepted) for kept in in_reach]),
            _rate(now, persisted, [(kept.at, kept.persisted) for kept in in_reach]),
            _rate(now, indexed, [(kept.at, kept.indexed) for kept in in_reach]),
            backlog.orders if backlog else None,
            age_seconds(now, backlog.oldest_accepted_at) if backlog else None,
            state.queue_messages,
            progress.outbox_orders if progress else None,
            age_seconds(now, progress.outbox_oldest) if progress else None,
            progress.dead_letters if progress else None,
            progress.latest_dead_letter if progress else None,
            progress.view_refreshed_at if progress else None,
            state.cold,
        )


def _rate(
    now: datetime, count: int | None, earlier: Sequence[tuple[datetime, int | None]]
) -> float | None:
    """Return the growth per second since the earliest known count.

    Never below 0: the stores are not read in the same instant, so one look may count a moving order
    twice and the next look once.
    """
    known = [(at, before) for at, before in earlier if before is not None]
    if count is None or not known:
        return None
    at, before = known[0]
    return round(max(count - before, 0) / (now - at).total_seconds(), 2)
