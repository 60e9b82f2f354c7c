"""A process that is told to stop has ended in time, whatever it waits for."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from polyglot_persistence.bootstrap import process
from polyglot_persistence.config import Settings

DEADLINE_SECONDS = 20.0
AT_ONCE_SECONDS = 0.01

Body = Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]]


async def in_time(body: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a process that is told to stop at once."""
    stop = asyncio.Event()
    stop.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await process._in_time(body(stop), stop, AT_ONCE_SECONDS)


async def test_what_ends_by_itself_is_not_cut() -> None:
    """Also if it was never told to, and its error is its caller's."""

    async def ends(_stop: asyncio.Event) -> None:
        return

    async def fails(_stop: asyncio.Event) -> None:
        raise LookupError

    await in_time(ends)
    with pytest.raises(LookupError):
        await in_time(fails)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await process._in_time(ends(asyncio.Event()), asyncio.Event(), DEADLINE_SECONDS)


async def test_what_waits_for_ever_is_cut_and_closes_what_it_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A cut is an ordinary cancellation, so that connections are closed."""
    closed = asyncio.Event()

    async def waits(_stop: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    await in_time(waits)
    assert closed.is_set()
    assert [record.getMessage() for record in caplog.records] == ["stop_cut_short"]


async def test_what_cannot_be_cancelled_does_not_keep_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killing is safe at any moment, so it is the last resort."""
    monkeypatch.setattr(process, "CUT_SECONDS", AT_ONCE_SECONDS)
    released = asyncio.Event()

    def exited(code: int) -> None:
        assert code == 1
        released.set()

    monkeypatch.setattr(os, "_exit", exited)

    async def stubborn(_stop: asyncio.Event) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    stop = asyncio.Event()
    stop.set()
    running = asyncio.create_task(process._in_time(stubborn(stop), stop, AT_ONCE_SECONDS))
    async with asyncio.timeout(DEADLINE_SECONDS):
        await released.wait()
        with pytest.raises(asyncio.InvalidStateError):
            await running
