"""Waiting for work or for an event."""

import asyncio

import pytest

from polyglot_persistence.runtime.until import until


async def test_work_that_ends_first_gives_its_result() -> None:
    """With events or without; nothing is left to wait for them."""

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    event = asyncio.Event()
    before = asyncio.all_tasks()
    assert await until(work()) == 7
    assert await until(work(), event, asyncio.Event()) == 7
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_an_event_that_is_set_first_cancels_the_work(which: int) -> None:
    """Any of them; when it returns, the work has ended."""
    events = [asyncio.Event() for _ in range(3)]
    ended = False

    async def work() -> bool:
        nonlocal ended
        try:
            events[which].set()
            return await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    assert await until(work(), *events) is None
    assert ended


async def test_an_error_of_the_work_is_raised_and_so_is_a_cancellation() -> None:
    """The caller gets it, and the work does not go on alone."""

    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await until(fail(), asyncio.Event())

    begun, event = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await event.wait()

    before = asyncio.all_tasks()
    waiting = asyncio.create_task(until(work(), asyncio.Event()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == before
