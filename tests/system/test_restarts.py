"""Real servers that are killed and stopped under load, one after the other, while we run on.

`RESTARTS` says how often each of them (`make restarts`); CI does it once.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import NamedTuple
from uuid import UUID

import pytest

from tests.support import processes
from tests.support.checkers import check_nothing_lost_or_doubled
from tests.support.clients import Connection, History, place, place_orders, read_orders
from tests.support.deployments import NEEDS_SERVERS, Deployment, on_servers
from tests.support.eventually import eventually
from tests.support.real_servers import RealServer

RESTARTS = int(os.environ.get("RESTARTS", "1"))
CONNECTIONS = 16
PAUSE_SECONDS = 0.03
"""16 connections place some 300 orders a second with it: enough in flight at every moment, and few
enough to compare each of them in the end."""
WORD = "gadget"
START_SECONDS = 240
RECOVERY_SECONDS = 180.0
"""Far above what is printed: a busy machine is no failure, waiting for an operator is."""

pytestmark = [
    NEEDS_SERVERS,
    pytest.mark.timeout(300 + RESTARTS * (START_SECONDS + RECOVERY_SECONDS)),
]


class Recovery(NamedTuple):
    """Seconds from a server's first answer until orders went all the way again."""

    accepted: float
    """With both copies."""
    persisted: float
    searchable: float


@asynccontextmanager
async def under_load(deployment: Deployment, history: History) -> AsyncIterator[None]:
    """Place and read orders meanwhile."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as load:
        load.create_task(
            place_orders(
                deployment.port,
                history,
                stop,
                connections=CONNECTIONS,
                word=WORD,
                pause_seconds=PAUSE_SECONDS,
            )
        )
        load.create_task(
            read_orders(
                deployment.port, history, stop, connections=2, pause_seconds=2 * PAUSE_SECONDS
            )
        )
        try:
            yield
        finally:
            stop.set()


async def more_are_accepted(history: History, orders: int, when: str) -> None:
    """Wait until so many more are."""
    enough = len(history.acknowledged) + orders
    await processes.eventually(
        lambda: len(history.acknowledged) >= enough, what=f"{orders} more orders accepted {when}"
    )


async def first_answer(server: RealServer) -> float:
    """Return the moment at which the server talks again."""

    async def attempt() -> float:
        assert await server.answers(), server.name
        return time.monotonic()

    return await eventually(attempt, within_seconds=START_SECONDS)


async def recovery(deployment: Deployment, history: History, since: float) -> Recovery:
    """Wait until orders go all the way; return when they got where."""
    before = await with_both_copies(deployment)

    async def both_copies() -> None:
        assert await with_both_copies(deployment) > before

    async def accepted() -> UUID:
        name = f"{WORD} probe {len(history.ids)} {time.monotonic()}"
        order_id = await place(probes, history, name, Decimal(1))
        assert order_id is not None
        return order_id

    async def reached(moment: str) -> None:
        status, state = await probes.request("GET", f"/api/orders/{probe}/status")
        assert status == 200, state
        assert state[moment], state

    moments = []
    await eventually(both_copies, within_seconds=RECOVERY_SECONDS)
    moments.append(time.monotonic() - since)
    with Connection(deployment.port) as probes:
        probe = await eventually(accepted, within_seconds=RECOVERY_SECONDS)
        for moment in ("persisted_at", "searchable_at"):
            await eventually(partial(reached, moment), within_seconds=RECOVERY_SECONDS)
            moments.append(time.monotonic() - since)
    return Recovery(*moments)


async def with_both_copies(deployment: Deployment) -> float:
    """Return how many orders were accepted so."""
    metrics = await deployment.metrics()
    one_copy = metrics["polyglot_orders_accepted_one_copy_total"]
    return metrics["polyglot_orders_accepted_total"] - one_copy


@pytest.mark.parametrize("name", ["rabbitmq", "redis", "postgres", "elasticsearch"])
async def test_a_server_that_is_killed_or_stopped_under_load_costs_no_order(name: str) -> None:
    """Orders are accepted throughout, and in the end all stores have what was acknowledged."""
    server = RealServer(name)
    history = History()
    recoveries = []
    async with on_servers() as deployment:
        await deployment.start()
        async with under_load(deployment, history):
            for number in range(RESTARTS):
                await more_are_accepted(history, 300, f"before {name} goes")
                await (server.down() if number % 2 else server.kill())
                await more_are_accepted(history, 300, f"without {name}")
                answered, _ = await asyncio.gather(first_answer(server), server.up())
                recoveries.append(await recovery(deployment, history, answered))
                print(f"{name} {number + 1}: {recoveries[-1]}")
        counts = await check_nothing_lost_or_doubled(deployment.port, history, word=WORD)
        longest = Recovery(*map(max, zip(*recoveries, strict=True)))
        print(f"{name} restarted {RESTARTS} times: {counts}; longest {longest}")
        await deployment.stop()
