"""Orders a second through bulk-orders (1,000 a request) and import, beside the peer's singles."""

from collections.abc import Sequence

from bench.context import Context
from bench.figures import Figure, Goal
from bench.orders import BULK_ORDERS
from bench.stock import send
from bench.wrk import load

CONNECTIONS = 4
IMPORTED = 200_000
GOAL = Goal("ratio", 12)


async def run(context: Context) -> Sequence[Figure]:
    """Measure; the peer has no working bulk, so its rate is that of single orders."""
    bulks: list[float] = []
    imports: list[float] = []
    singles: list[float] = []
    for side in context.sides():
        await side.wipe()
        await side.start_api()
    seconds = context.seconds(3, 5)
    for number in range(context.rounds):
        if context.peer is not None:
            await context.peer.forget_accepted()
            found = await load(
                context.peer.url,
                context.files.singles,
                path="/api/orders",
                seconds=seconds,
                connections=64,
            )
            singles.append(found.rate)
        product = context.product
        await product.forget_accepted()
        found = await load(
            product.url,
            context.files.bulks,
            path="/api/bulk-orders",
            seconds=seconds,
            connections=CONNECTIONS,
        )
        bulks.append(found.rate * BULK_ORDERS)
        await product.forget_accepted()
        imports.append(IMPORTED / await send(product.url, context.lines, 0, IMPORTED))
        context.tell(
            f"bulk, round {number + 1}: bulk {bulks[-1]:,.0f}/s, import {imports[-1]:,.0f}/s"
        )
    return [
        Figure("bulk, 1,000 orders a request", "orders/s", bulks, singles, GOAL),
        Figure("import", "orders/s", imports, singles, GOAL),
    ]
