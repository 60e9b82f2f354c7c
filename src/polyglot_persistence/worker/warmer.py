"""Ends the cold time of the cache, in one process at a time."""

import asyncio

from polyglot_persistence.flows.reading.cold_cache import Warming
from polyglot_persistence.ports.orders import OrderStore
from polyglot_persistence.runtime.repeat import repeat_as_leader

LOOK_INTERVAL_SECONDS = 1.0


async def warm_forever(warming: Warming, store: OrderStore, stop: asyncio.Event) -> None:
    """Look at cache, epoch and queue until stopped."""
    await repeat_as_leader(
        store, "warmer", warming.look, stop, interval_seconds=LOOK_INTERVAL_SECONDS
    )
