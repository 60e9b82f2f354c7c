"""Orders a second through bulk-orders (1,000 a request) and import, beside the peer's singles."""

from collections.abc import Sequence

from bench.context import Context
from bench.figures import Figure, Goal
from bench.orders import BULK_ORDERS
from bench.sides import OnServers, Side
from bench.stock import send
from bench.wrk import load

CONNECTIONS = 4
IMPORTED = 200_000
GOAL = Goal("ratio", 12)


async def run(context: Context) -> Sequence[Figure]:
    """Measure; the peer has no working bulk, so its rate is that of single orders."""
    product = context.product
    apis: dict[str, Side] = {"": product, ", 2 API processes": product.two}
    rates: dict[str, list[float]] = {}
    for side in (*context.sides(), product.two):
        if isinstance(side, OnServers):
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
            rates.setdefault("peer", []).append(found.rate)
        for more, api in apis.items():
            await product.forget_accepted()
            found = await load(
                api.url,
                context.files.bulks,
                path="/api/bulk-orders",
                seconds=seconds,
                connections=CONNECTIONS,
            )
            rates.setdefault(f"bulk, 1,000 orders a request{more}", []).append(
                found.rate * BULK_ORDERS
            )
            await product.forget_accepted()
            taken = await send(api.url, context.lines, 0, IMPORTED)
            rates.setdefault(f"import{more}", []).append(IMPORTED / taken)
        told = ", ".join(f"{name}: {found[-1]:,.0f}/s" for name, found in rates.items())
        context.tell(f"bulk, round {number + 1}: {told}")
    singles = rates.pop("peer", [])
    return [Figure(name, "orders/s", found, singles, GOAL) for name, found in rates.items()]
