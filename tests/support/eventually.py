"""Waiting in tests: for an event, with a deadline, never for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    attempt: Callable[[], Awaitable[T]],
    *,
    within_seconds: float,
    retried: tuple[type[Exception], ...] = (AssertionError,),
) -> T:
    """Repeat `attempt` until it raises none of `retried`; the last failure is raised in the end."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            return await attempt()
        except retried:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(0.01)
