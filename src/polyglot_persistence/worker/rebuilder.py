"""Builds the search index whenever it is missing, lost in part, or was left unfinished."""

import asyncio
import contextlib

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.projections.rebuild import ROLE, RebuildFlow, Step
from polyglot_persistence.ports.leadership import Leadership
from polyglot_persistence.ports.search import SearchIndex
from polyglot_persistence.runtime.repeat import pause, repeat
from polyglot_persistence.telemetry import LOOP_SUCCESS

LOOP = "search_rebuild"

FIRST_INDEX_SECONDS = 15.0
"""Maximum time that the very first orders wait for an index."""

LOOK_SECONDS = 0.1
"""Time between two looks at an index that this or another worker is making."""


class _StoppedError(Exception):
    """The worker is stopping; the rebuild can be resumed."""


async def make_first(
    flow: RebuildFlow, search: SearchIndex, record: Leadership, stop: asyncio.Event
) -> None:
    """Return once an empty record has an index that answers, made by any worker.

    The first orders are then indexed as they are persisted; without an index they would wait in the
    outbox. After `FIRST_INDEX_SECONDS`, or if search is away, the work is left to `rebuild_forever`
    and orders are persisted meanwhile. Returns at once if there are orders.
    """
    with contextlib.suppress(PolyglotError, TimeoutError, _StoppedError):
        if not await flow.is_first():
            return
        async with asyncio.timeout(FIRST_INDEX_SECONDS):
            while not stop.is_set():
                with contextlib.suppress(PolyglotError):
                    await _build_if_needed(flow, record, stop)
                    await search.ping()  # a new index may take a moment to open
                    return
                await pause(stop, LOOK_SECONDS)


async def rebuild_forever(
    flow: RebuildFlow,
    record: Leadership,
    stop: asyncio.Event,
    *,
    interval_seconds: float,
) -> None:
    """Build the index whenever that is needed, in one process at a time, until stopped.

    An index in use gets the settings of a new one once, after the first step.
    """
    has_settings = False

    async def step() -> None:
        nonlocal has_settings
        await _build_if_needed(flow, record, stop)
        if not has_settings:
            await flow.adopt_settings()
            has_settings = True

    with contextlib.suppress(_StoppedError):
        await repeat(LOOP, step, stop, interval_seconds=interval_seconds)


async def _build_if_needed(flow: RebuildFlow, record: Leadership, stop: asyncio.Event) -> None:
    if not await flow.is_needed():
        return
    async with record.lead(ROLE) as lead:
        if lead is None or not await flow.is_needed():
            return

        async def go_on(_step: Step) -> None:
            await lead.confirm()
            if stop.is_set():
                raise _StoppedError
            LOOP_SUCCESS.labels(LOOP).set_to_current_time()  # a rebuild may take hours

        await flow.run(go_on)
