"""Queued orders persisted and indexed by one worker process; its start is not counted."""

import time
from collections.abc import Sequence

from bench.context import Context
from bench.figures import Figure, Goal
from bench.sides import Peer, Product
from bench.stock import fill, looks
from bench.wrk import load

ORDERS = 200_000
FIRST_ORDERS = 300_000
"""They come before, since the JVM of a cluster that was just started takes three times as long for
a document: it compiles what it runs."""

GOAL = Goal("ratio", 150)


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    rates: dict[str, list[float]] = {"product": [], "peer": []}
    for side in context.sides():
        await side.wipe()
        await side.start_api()
    await fill(context, context.product, FIRST_ORDERS)
    await context.product.worker.stop()
    for number in range(2 if context.quick else context.rounds):
        if context.peer is not None:
            rates["peer"].append(await drain_peer(context, context.peer))
        rates["product"].append(await drain(context, context.product, ORDERS))
        context.tell(f"drain, round {number + 1}: " + _last(rates))
    return [Figure("drain, one worker", "orders/s", rates["product"], rates["peer"], GOAL)]


async def drain(context: Context, product: Product, orders: int) -> float:
    """Queue orders, let one worker take them, return how many a second it persisted and indexed."""
    before = await product.orders()
    while (queued := await product.dirty()) < orders:
        missing = (orders - queued) / 30_000  # about what is accepted in a second
        await load(
            product.url,
            context.files.singles,
            path="/api/orders",
            seconds=max(1, min(4, round(missing))),
            connections=256,
        )
    queued = await _all_committed(product)
    await product.worker.start()
    first = (0.0, queued)
    async for now in looks(0.02):
        left = await product.dirty()
        if not first[0] and left < queued:
            first = (now, left)
        if left == 0:
            break
    async for _ in looks(0.02):
        if await product.unindexed() == 0:
            break
    rate = first[1] / (time.perf_counter() - first[0])
    await product.worker.stop()
    await check(product, before + queued)
    return rate


async def _all_committed(product: Product) -> int:
    """Return how many are dirty once that stands still: wrk leaves without its last answers."""
    before = -1
    async for _ in looks(0.3):
        if (now := await product.dirty()) == before:
            break
        before = now
    return before


async def check(product: Product, expected: int) -> None:
    """Compare record and index with what was accepted.

    Raises:
        AssertionError: an order is missing or there twice; the rate would be worth nothing.
    """
    rows = (await product.record.fetch("SELECT count(*) FROM orders"))[0][0]
    documents = await product.documents()
    if not rows == documents == expected:
        raise AssertionError(f"{expected} accepted, {rows} persisted, {documents} searchable")


async def drain_peer(context: Context, peer: Peer) -> float:
    """Queue some orders, let the peer's worker run for some seconds, return its rate."""
    await peer.queues.purge("order_queue")
    await load(peer.url, context.files.singles, path="/api/orders", seconds=1, connections=64)
    before = first = await peer.orders()
    await peer.worker.start()
    async for _ in looks(0.02):
        if (first := await peer.orders()) > before:
            break
    started = time.perf_counter()
    seconds = context.seconds(5, 10)
    async for now in looks(0.1):
        if now - started > seconds:
            break
    # Its row comes before its document, so this counts one order too many at most.
    last, ended = await peer.orders(), time.perf_counter()
    await peer.worker.stop()
    return (last - first) / (ended - started)


def _last(rates: dict[str, list[float]]) -> str:
    return ", ".join(f"{side} {values[-1]:,.0f}/s" for side, values in rates.items() if values)
