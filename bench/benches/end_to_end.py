"""The highest rate at which neither dirty set nor outbox grow, everything on this machine.

First as much as 256 connections can send; if the backlog grows then, evenly paced less and less.
"""

import asyncio
import statistics
from collections.abc import Sequence

from bench.benches.drain import drain_peer
from bench.context import Context
from bench.figures import Figure, Goal
from bench.stock import settled
from bench.wrk import Load, load

GOAL = Goal("ratio", 50)
CONNECTIONS = 256
STEP = 0.9
STEPS_MAX = 6
GROWTH_MAX = 0.03
"""Of what was accepted; an order is in the backlog for a second before it is searchable."""


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    product, peer = context.product, context.peer
    await product.wipe()
    await product.start_api()
    await product.worker.start()
    await load(
        product.url, context.files.singles, path="/api/orders", seconds=2, connections=CONNECTIONS
    )
    await settled(product)
    rate, steps = 0.0, 0
    while True:
        found, growth = await _offer(context, rate)
        context.tell(f"end to end: {found.rate:,.0f}/s accepted, backlog grew by {growth:,.0f}/s")
        await settled(product)
        if growth <= GROWTH_MAX * found.rate:
            break
        if (steps := steps + 1) == STEPS_MAX:
            raise RuntimeError(f"the backlog grew even at {found.rate:,.0f} orders/s")
        rate = min(found.rate - growth, found.rate * STEP)
    await product.stop()
    drained = []
    if peer is not None:
        await peer.wipe()
        await peer.start_api()
        drained.append(await drain_peer(context, peer))
    return [Figure("end to end, no backlog growth", "orders/s", [found.rate], drained, GOAL)]


async def _offer(context: Context, rate: float) -> tuple[Load, float]:
    """Offer orders; return the load and by how many orders a second the backlog grew.

    Of the last three quarters, the second half is compared with the first: at the beginning every
    order that is not yet searchable is growth.
    """
    product = context.product
    seconds = context.seconds(16, 60)
    backlogs: list[float] = []

    ended = asyncio.Event()

    async def watch() -> None:
        while not ended.is_set():
            backlogs.append(await product.dirty() + await product.unindexed())
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    try:
        found = await load(
            product.url,
            context.files.singles,
            path="/api/orders",
            seconds=seconds,
            connections=CONNECTIONS,
            rate=rate,
        )
    finally:
        ended.set()
        await watching
    steady = backlogs[len(backlogs) // 4 :]
    half = len(steady) // 2
    first, second = (statistics.median(part) for part in (steady[:half], steady[half:]))
    growth = (second - first) / (seconds * 3 / 8)
    return found, max(growth, 0.0)
