"""Accept, drain, read and search with 10 thousand to 5 million orders stored."""

from collections.abc import Mapping, Sequence

from bench import orders
from bench.benches.drain import drain
from bench.context import Context
from bench.figures import Figure, Goal
from bench.sides import Product
from bench.stock import fill, looks
from bench.wrk import load

STORED = (10_000, 100_000, 1_000_000, 5_000_000)
READ_AMONG = 100_000
KEPT = dict.fromkeys(("accept", "drain", "read"), Goal("at least", 0.75))
DRAINED = 100_000
"""So many come on top at each step."""


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    product = context.product
    await product.wipe()
    figures: list[Figure] = []
    rates: dict[str, list[float]] = {}
    for stored in STORED:
        await fill(context, product, stored)
        await product.worker.stop()
        await _at_rest(product)
        for name, rate in (await _at(context, stored)).items():
            rates.setdefault(name, []).append(rate)
            figures.append(Figure(f"{name}, {stored:,} stored", "a second", [rate], stored=stored))
            context.tell(f"growth, {name}, {stored:,} orders stored: {rate:,.0f}/s")
    return figures + [
        Figure(f"{name}, last over first", "times", [found[-1] / found[0]], goal=KEPT.get(name))
        for name, found in rates.items()
    ]


async def _at_rest(product: Product) -> None:
    """Return once the stores have done what filling them left to do: dirty pages, merges."""
    await product.record.execute("CHECKPOINT")
    async for _ in looks(0.5):
        stats = await product.index.call("GET", f"/{product.index.name}/_stats/merge")
        if stats["_all"]["total"]["merges"]["current"] == 0:
            return


async def _at(context: Context, stored: int) -> Mapping[str, float]:
    product, seconds = context.product, context.seconds(5, 10)
    rows = await product.record.fetch(
        "SELECT id FROM orders ORDER BY random() LIMIT $1",
        min(READ_AMONG, stored),
    )
    paths = context.directory / "reads-growth"
    reads = orders.reads([str(row[0]) for row in rows], zipf=True, number=200_000)
    paths.write_text("".join(f"{path}\n" for path in reads))
    # What is read often is cached: bring it there first.
    await load(product.url, paths, seconds=seconds, connections=64)
    read = await load(product.url, paths, seconds=seconds, connections=64)
    searched = await load(product.url, context.files.queries, seconds=seconds, connections=16)
    accepted = await load(
        product.url, context.files.singles, path="/api/orders", seconds=seconds, connections=64
    )
    drained = await drain(context, product, DRAINED)
    return {
        "accept": accepted.rate,
        "drain": drained,
        "read": read.rate,
        "search": searched.rate,
    }
