"""GET of cached orders, 64 connections, ids among 100,000: by Zipf's law and uniformly.

Each load is sent for some seconds before it is measured, since a process forgets once a minute what
it remembers of orders, and by chance the minute is up in one side's turn and not in another's.

By one API process and by two: what a reader is answered from lies in the process's own memory.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import orders
from bench.context import Context
from bench.figures import Figure, Goal
from bench.sides import Peer
from bench.stock import send, settled
from bench.wrk import load

ORDERS = 100_000
PATHS = 200_000
CONNECTIONS = 64
WARM_UP_SECONDS = 2
GOALS = {"Zipf": 2.7, "uniform": 2.0}


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    files = await prepare(context)
    product, two = context.product, context.product.two
    await two.start_api()
    rates: dict[tuple[str, str], list[float]] = {}
    for number in range(context.rounds):
        for kind, path in files.items():
            for side in (*context.sides(), two):
                await load(side.url, path, seconds=WARM_UP_SECONDS, connections=CONNECTIONS)
                found = await context.closed_loop(
                    side,
                    f"read, round {number + 1}, {kind}",
                    path,
                    seconds=context.seconds(4, 10),
                    connections=CONNECTIONS,
                )
                rates.setdefault((side.name, kind), []).append(found.rate)
    return [
        Figure(
            f"read, {kind} over 100,000 ids{more}",
            "orders/s",
            rates[side.name, kind],
            rates.get(("peer", kind), []),
            Goal("ratio", goal),
        )
        for kind, goal in GOALS.items()
        for side, more in ((product, ""), (two, ", 2 API processes"))
    ]


async def prepare(context: Context) -> dict[str, Path]:
    """Cache the same persisted orders on both sides; return the files of paths."""
    product = context.product
    await product.wipe()
    await product.start_api()
    await product.worker.start()
    await send(product.url, context.lines, 0, ORDERS)
    await settled(product)
    await product.worker.stop()
    rows = await product.record.fetch("SELECT id, product_name, amount, created_at FROM orders")
    if context.peer is not None:
        await _cache_in_peer(context.peer, [tuple(row) for row in rows])
    ids = [str(row["id"]) for row in rows]
    files = {kind: context.directory / f"reads-{kind}" for kind in GOALS}
    for kind, path in files.items():
        paths = orders.reads(ids, zipf=kind == "Zipf", number=PATHS)
        path.write_text("".join(f"{one}\n" for one in paths))
    return files


async def _cache_in_peer(peer: Peer, rows: Sequence[tuple[object, ...]]) -> None:
    await peer.wipe()
    await peer.start_api()
    encoder = msgspec.json.Encoder(decimal_format="number")
    names = ("id", "product_name", "amount", "created_at")
    for first in range(0, len(rows), 10_000):
        await peer.cache.commands(
            (
                "SET",
                f"order:{row[0]}",
                encoder.encode(dict(zip(names, row, strict=True))),
                "EX",
                86_400,
            )
            for row in rows[first : first + 10_000]
        )
