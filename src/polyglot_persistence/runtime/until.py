"""Waits for work or for an event, whichever comes first."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_Result = TypeVar("_Result")


async def until(work: Awaitable[_Result], *events: asyncio.Event) -> _Result | None:
    """Return the result of the work; cancel it and return None if an event is set first."""
    if not events:
        return await work
    task = asyncio.ensure_future(work)
    waits = [task, *(asyncio.ensure_future(event.wait()) for event in events)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        # An error raised here keeps this frame alive, and its task would keep the error.
        waits.clear()
        del task
