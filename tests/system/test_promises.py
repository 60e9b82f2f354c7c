"""Nothing acknowledged is lost and nothing is doubled, however the system ends."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.checkers import check_nothing_lost_or_doubled
from tests.support.clients import History, place_orders
from tests.support.processes import Process, eventually, free_port, polyglot_up

CONNECTIONS = 64
ORDERS_BEFORE_THE_END = 2_000


async def by_sigterm(process: Process) -> None:
    """End it as an operator does."""
    process.send(signal.SIGTERM)
    assert await process.ended() == 0


async def by_kill_9(process: Process) -> None:
    """End all of it, servers included, at one moment and without a word."""
    await process.family_killed()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("end", [by_sigterm, by_kill_9])
async def test_every_acknowledged_order_is_there_once_after_a_restart(
    end: Callable[[Process], Awaitable[None]], tmp_path: Path
) -> None:
    """In record, search and sales; orders without an answer are there once or not at all."""
    history = History()
    stop = asyncio.Event()
    port = free_port()
    async with polyglot_up(tmp_path / "data", port=port) as up:
        placing = asyncio.create_task(
            place_orders(port, history, stop, connections=CONNECTIONS, word="widget")
        )
        await eventually(
            lambda: len(history.acknowledged) >= ORDERS_BEFORE_THE_END, what="enough orders"
        )
        await end(up.process)
        stop.set()
        await placing
    async with polyglot_up(tmp_path / "data", port=port) as up:
        print(await check_nothing_lost_or_doubled(port, history))
        answer = await up.request("GET", "/api/search?q=widget")
        assert answer.json["total"] >= len(history.acknowledged)
