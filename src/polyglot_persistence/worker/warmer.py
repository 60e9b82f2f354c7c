"""Ends the cold time of the cache, in one process at a time."""

import asyncio

from polyglot_persistence.flows.reading.cold_cache import Warming
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.runtime.repeat import repeat_as_leader

LOOK_INTERVAL_SECONDS = 1.0


async def warm_forever(warming: Warming, record: Leadership, stop: asyncio.Event) -> None:
    """Look at cache, epoch and queue until stopped."""

    async def step() -> None:
        await warming.look()

    await repeat_as_leader(record, "warmer", step, stop, interval_seconds=LOOK_INTERVAL_SECONDS)
