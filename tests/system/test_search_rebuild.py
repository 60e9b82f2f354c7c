"""The search index built anew under load, and its builder killed."""

import asyncio

import pytest

from tests.support.checkers import check_nothing_lost_or_doubled
from tests.support.clients import Connection, History, place_orders
from tests.support.deployments import Deployment
from tests.support.processes import eventually

WORD = "widget"
ORDERS_BEFORE = 1_500
REBUILD_SECONDS = 180.0


@pytest.mark.timeout(400)
async def test_a_rebuild_that_is_killed_is_ended_by_another_process(deployment: Deployment) -> None:
    """While orders come in; no search finds less than the one before, and nothing is lost."""
    await deployment.start()
    history, stop = History(), asyncio.Event()
    placing = asyncio.create_task(
        place_orders(deployment.port, history, stop, connections=4, word=WORD)
    )
    await eventually(lambda: len(history.acknowledged) >= ORDERS_BEFORE, what="enough orders")
    totals: list[int] = []

    async def search() -> None:
        with Connection(deployment.port) as connection:
            while not stop.is_set():
                # With facets the total is exact, however many match.
                path = f"/api/search?q={WORD}&limit=1&facets=true"
                status, found = await connection.request("GET", path)
                if status != 503:  # an index that is late with its answer
                    assert status == 200, found
                    totals.append(found["total"])

    searching = asyncio.create_task(search())
    begun = False
    while not begun:  # the worker may still be about the very first index: then it is waited for
        with deployment.command("search", "rebuild", "--rate", "50") as builder:
            await eventually(
                lambda: "rebuild_begun" in builder.log() or builder.code == 0,
                what="the rebuild",
            )
            begun = "rebuild_begun" in builder.log()
            await builder.killed()
    with deployment.command("search", "rebuild", "--json") as builder:
        assert await builder.ended(REBUILD_SECONDS) == 0, builder.log()[-3000:]
    stop.set()
    await asyncio.gather(placing, searching)
    assert totals
    assert totals == sorted(totals)
    print(await check_nothing_lost_or_doubled(deployment.port, history, word=WORD))
