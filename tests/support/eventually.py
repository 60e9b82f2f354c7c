"""Waiting in tests: for an event, with a deadline, never for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

WAIT_SECONDS = 45.0
"""For what comes at once on a machine that has nothing else to do."""

LOOK_SECONDS = 0.01


async def eventually(
    attempt: Callable[[], Awaitable[T]],
    *,
    within_seconds: float = WAIT_SECONDS,
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
        await look_again()


async def look_again() -> None:
    """Pause between two looks, in a loop whose deadline moves on as long as anything else does."""
    await asyncio.sleep(LOOK_SECONDS)


async def eventually_true(
    condition: Callable[[], bool], within_seconds: float = WAIT_SECONDS, what: str = "it"
) -> None:
    """Wait until the condition is true; fail the test with `what` if it does not become so."""

    async def attempt() -> None:
        assert condition(), f"{what} did not happen in {within_seconds} s"

    await eventually(attempt, within_seconds=within_seconds)
