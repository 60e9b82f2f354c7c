"""Builds the search index whenever it is missing, or a rebuild was left unfinished."""

import asyncio

from polyglot_persistence.flows.rebuild import ROLE, RebuildFlow, Step
from polyglot_persistence.ports import OrderStore
from polyglot_persistence.worker.repeat import repeat


class _StoppedError(Exception):
    """The worker is to end; the rebuild can be taken up again."""


async def rebuild_forever(
    flow: RebuildFlow, store: OrderStore, stop: asyncio.Event, *, interval_seconds: float
) -> None:
    """Look at the index again and again, and build it in one process at a time, until stopped."""

    async def step() -> bool:
        if not await flow.is_needed():
            return False
        async with store.lead(ROLE) as lead:
            if lead is not None and await flow.is_needed():

                async def go_on(_step: Step) -> None:
                    await lead.confirm()
                    if stop.is_set():
                        raise _StoppedError

                await flow.run(go_on)
        return False

    try:
        await repeat("search rebuild", step, stop, interval_seconds=interval_seconds)
    except _StoppedError:
        return
