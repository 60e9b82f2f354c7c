"""Builds the search index whenever it is missing, or a rebuild was left unfinished."""

import asyncio
import contextlib
from functools import partial

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.projections.first_index import FirstIndex
from polyglot_persistence.flows.projections.rebuild import ROLE, RebuildFlow, Step
from polyglot_persistence.ports.orders import OrderStore
from polyglot_persistence.runtime.repeat import pause, repeat
from polyglot_persistence.telemetry import LOOP_SUCCESS

LOOP = "search_rebuild"

FIRST_INDEX_SECONDS = 15.0
"""Maximum time that the first orders of all wait for an index."""

LOOK_SECONDS = 0.1
"""Between two looks at an index that this or another worker is making."""


class _StoppedError(Exception):
    """The worker is to end; the rebuild can be taken up again."""


async def make_first(
    flow: RebuildFlow, first: FirstIndex, store: OrderStore, stop: asyncio.Event
) -> None:
    """Return once an empty record has an index that answers, whichever worker makes it.

    The first orders are then indexed as they are persisted; without an index they would wait in the
    outbox. What is not done after `FIRST_INDEX_SECONDS` is left to `rebuild_forever`, and so is all
    of it if search is away: orders are persisted meanwhile. Returns at once if there are orders.
    """
    with contextlib.suppress(PolyglotError, TimeoutError, _StoppedError):
        if not await first.is_due():
            return
        async with asyncio.timeout(FIRST_INDEX_SECONDS):
            while not stop.is_set():
                with contextlib.suppress(PolyglotError):
                    await _build_if_needed(flow, first, store, stop)
                    if await first.answers():
                        return
                await pause(stop, LOOK_SECONDS)


async def rebuild_forever(
    flow: RebuildFlow,
    first: FirstIndex,
    store: OrderStore,
    stop: asyncio.Event,
    *,
    interval_seconds: float,
) -> None:
    """Build the index whenever that is needed, in one process at a time, until stopped."""
    step = partial(_build_if_needed, flow, first, store, stop)
    with contextlib.suppress(_StoppedError):
        await repeat(LOOP, step, stop, interval_seconds=interval_seconds)


async def _build_if_needed(
    flow: RebuildFlow, first: FirstIndex, store: OrderStore, stop: asyncio.Event
) -> None:
    if not await flow.is_needed():
        return
    async with store.lead(ROLE) as lead:
        if lead is None or not await flow.is_needed() or await first.make():
            return

        async def go_on(_step: Step) -> None:
            await lead.confirm()
            if stop.is_set():
                raise _StoppedError
            LOOP_SUCCESS.labels(LOOP).set_to_current_time()  # a rebuild may take hours

        await flow.run(go_on)
