"""The flow of dead letters, in an API process or alone for the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.bootstrap.stores import Stores, connect
from polyglot_persistence.config import Settings
from polyglot_persistence.flows.behind.dead_letters import DeadLetterFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.ports.clock import Clock


def dead_letter_flow(stores: Stores, clock: Clock) -> DeadLetterFlow:
    """Return the flow over the stores of a process."""
    persist = PersistFlow(stores.record, stores.cache, clock)
    return DeadLetterFlow(stores.letters, stores.record, stores.cache, persist)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[DeadLetterFlow]:
    """Give the flow over the stores that the settings name; no API and no worker is needed."""
    stores = connect(settings)
    try:
        yield dead_letter_flow(stores, SystemClock())
    finally:
        await stores.close()
