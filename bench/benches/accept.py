"""POST one order, without a worker: one API process a side, 64 and 256 connections."""

from collections.abc import Sequence

from bench.context import Context
from bench.figures import Figure, Goal
from bench.wrk import load

GOALS = {64: 1.5, 256: 2.6}
WARM_UP_SECONDS = 1.0


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    rates: dict[tuple[str, int], list[float]] = {}
    for side in context.sides():
        await side.wipe()
        await side.start_api()
        await load(
            side.url,
            context.files.singles,
            path="/api/orders",
            seconds=WARM_UP_SECONDS,
            connections=64,
        )
    for number in range(context.rounds):
        for connections in GOALS:
            for side in context.sides():
                await side.forget_accepted()
                found = await context.closed_loop(
                    side,
                    f"accept, round {number + 1}, {connections} connections",
                    context.files.singles,
                    path="/api/orders",
                    seconds=context.seconds(4, 10),
                    connections=connections,
                )
                rates.setdefault((side.name, connections), []).append(found.rate)
    return [
        Figure(
            f"accept, {connections} connections",
            "orders/s",
            rates["product", connections],
            rates.get(("peer", connections), []),
            Goal("ratio", goal),
        )
        for connections, goal in GOALS.items()
    ]
