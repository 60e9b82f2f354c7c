"""Builds the search index whenever it is missing, or a rebuild was left unfinished."""

import asyncio
import contextlib

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.rebuild import ROLE, RebuildFlow, Step
from polyglot_persistence.ports import OrderStore
from polyglot_persistence.worker.repeat import repeat

FIRST_INDEX_SECONDS = 5.0
"""The longest that the first orders of all wait for an index to be made."""


class _StoppedError(Exception):
    """The worker is to end; the rebuild can be taken up again."""


async def build_first(flow: RebuildFlow, store: OrderStore, stop: asyncio.Event) -> None:
    """Build the index of a record without orders, before there are any.

    They are then indexed as they are persisted. Orders that find no index wait in the outbox, and
    are worked off beside a rebuild: a first start under load took three times as long. What fails,
    or takes longer than `FIRST_INDEX_SECONDS`, is left to `rebuild_forever`.
    """
    with contextlib.suppress(PolyglotError, TimeoutError, _StoppedError):
        async with asyncio.timeout(FIRST_INDEX_SECONDS):
            if (await store.progress(dead_letters_max=0)).persisted == 0:
                await _build_if_needed(flow, store, stop)


async def rebuild_forever(
    flow: RebuildFlow, store: OrderStore, stop: asyncio.Event, *, interval_seconds: float
) -> None:
    """Look at the index again and again, and build it in one process at a time, until stopped."""

    async def step() -> bool:
        await _build_if_needed(flow, store, stop)
        return False

    with contextlib.suppress(_StoppedError):
        await repeat("search rebuild", step, stop, interval_seconds=interval_seconds)


async def _build_if_needed(flow: RebuildFlow, store: OrderStore, stop: asyncio.Event) -> None:
    if not await flow.is_needed():
        return
    async with store.lead(ROLE) as lead:
        if lead is not None and await flow.is_needed():

            async def go_on(_step: Step) -> None:
                await lead.confirm()
                if stop.is_set():
                    raise _StoppedError

            await flow.run(go_on)
