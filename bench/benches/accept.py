"""POST one order, without a worker, over 64 and 256 connections; one API process, and two."""

from collections.abc import Sequence

from bench.context import Context
from bench.figures import Figure, Goal
from bench.sides import OnServers, Side
from bench.wrk import load

GOALS = {64: 1.5, 256: 2.6}
WARM_UP_SECONDS = 1.0
TWO = ", 2 API processes"


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    rates: dict[tuple[str, int], list[float]] = {}
    product, peer = context.product, context.peer
    for side in context.sides():
        await side.wipe()
        await side.start_api()
    await product.two.start_api()
    turns: list[tuple[OnServers, Side]] = [(peer, peer)] if peer else []
    turns += [(product, product), (product, product.two)]
    for _, api in turns:
        await load(
            api.url,
            context.files.singles,
            path="/api/orders",
            seconds=WARM_UP_SECONDS,
            connections=64,
        )
    for number in range(context.rounds):
        for connections in GOALS:
            for stores, api in turns:
                await stores.forget_accepted()
                found = await context.closed_loop(
                    api,
                    f"accept, round {number + 1}, {connections} connections",
                    context.files.singles,
                    path="/api/orders",
                    seconds=context.seconds(4, 10),
                    connections=connections,
                )
                rates.setdefault((api.name, connections), []).append(found.rate)
    return [
        Figure(
            f"accept, {connections} connections{more}",
            "orders/s",
            rates[api.name, connections],
            rates.get(("peer", connections), []),
            Goal("ratio", goal),
        )
        for connections, goal in GOALS.items()
        for api, more in ((product, ""), (product.two, TWO))
    ]
