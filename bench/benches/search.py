"""Search with words of real product names, 16 connections, one million orders."""

import asyncio
from collections.abc import Sequence

from bench.context import Context
from bench.figures import Figure, Goal
from bench.sides import Peer
from bench.stock import fill

ORDERS = 1_000_000
CONNECTIONS = 16


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    product = context.product
    if not await product.record.exists() or await product.orders() > ORDERS:
        await product.wipe()
    await fill(context, product, ORDERS)
    await product.worker.stop()
    if context.peer is not None:
        await context.peer.start_api()
        await copy_index(context, context.peer)
    rates: dict[str, list[float]] = {"product": [], "peer": []}
    slowest: dict[str, list[float]] = {"product": [], "peer": []}
    for number in range(context.rounds):
        for side in context.sides():
            found = await context.closed_loop(
                side,
                f"search, round {number + 1}",
                context.files.queries,
                seconds=context.seconds(5, 15),
                connections=CONNECTIONS,
            )
            rates[side.name].append(found.rate)
            slowest[side.name].append(found.p99_ms)
    stored = f"{await context.product.orders():,} orders"
    return [
        Figure(
            f"search, {stored}", "answers/s", rates["product"], rates["peer"], Goal("ratio", 1.0)
        ),
        Figure(
            f"search, p99, {stored}",
            "ms",
            slowest["product"],
            slowest["peer"],
            Goal("at most", 60),
            higher_is_better=False,
        ),
    ]


async def copy_index(context: Context, peer: Peer) -> None:
    """Give the peer's index the same orders, in the form in which its worker writes them."""
    ours = context.product.index
    wanted = await ours.documents()
    if await peer.index.documents() == wanted:
        return
    await peer.index.wipe()
    task = await peer.index.call(
        "POST",
        "/_reindex?wait_for_completion=false&slices=2",
        {
            "source": {
                "index": ours.name,
                "size": 5_000,
                "_source": ["id", "product_name", "amount_cents", "created_at"],
            },
            "dest": {"index": peer.index.name},
            "script": {"source": "ctx._source.amount = ctx._source.remove('amount_cents') / 100.0"},
        },
    )
    while not (state := await peer.index.call("GET", f"/_tasks/{task['task']}"))["completed"]:
        await asyncio.sleep(1)
    if failures := state["response"]["failures"]:
        raise RuntimeError(f"the peer's index could not be filled: {failures[0]}")
    context.tell(f"search: the peer's index has {await peer.index.documents():,} orders")
