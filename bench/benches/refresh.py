"""REFRESH of the daily view at 150,000 and at 1.5 million orders, over a year.

The orders go into databases of their own, by the statement that a worker persists with.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from bench.context import Context
from bench.figures import Figure, Goal
from bench.sides import migrate
from bench.stores import Record
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id

FEW, MANY = 150_000, 1_500_000
REFRESHES = 5
BATCH = 2_000
WRITERS = 2
PRODUCTS = 500
GOAL = Goal("at most", 1.3)

_FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
_PEER_ORDERS = """
    INSERT INTO orders (id, product_name, amount, created_at)
    SELECT gen_random_uuid()::text, 'Product ' || n %% 500, (n %% 10000)::numeric / 100,
           timestamptz '2025-01-01Z' + (n %% 8760) * interval '1 hour'
    FROM generate_series(%d, %d) AS n
"""


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    admin = context.product.record.admin_dsn
    ours, theirs = Record(admin, "bench_refresh"), Record(admin, "bench_refresh_peer")
    await ours.wipe()
    await migrate(ours)
    if context.peer is not None:
        await theirs.wipe()
        await theirs.execute(context.peer.schema)
    product: dict[int, list[float]] = {}
    peer: dict[int, list[float]] = {}
    for first, orders in ((0, FEW), (FEW, MANY)):
        await _persist(ours, first, orders)
        product[orders] = await _refresh(ours)
        if context.peer is not None:
            await theirs.execute(_PEER_ORDERS % (first + 1, orders))
            peer[orders] = await _refresh(theirs)
        context.tell(
            f"refresh, {orders:,} orders: {sorted(product[orders])[REFRESHES // 2]:.0f} ms"
        )
    await ours.drop()
    await theirs.drop()
    growth, peer_growth = (
        [sorted(times[MANY])[n] / sorted(times[FEW])[n] for n in range(REFRESHES)] if times else []
        for times in (product, peer)
    )
    return [
        *(
            Figure(
                f"refresh, {orders:,} orders",
                "ms",
                product[orders],
                peer.get(orders, []),
                higher_is_better=False,
            )
            for orders in (FEW, MANY)
        ),
        Figure("refresh, growth", "times", growth, peer_growth, GOAL, higher_is_better=False),
    ]


async def _persist(record: Record, first: int, last: int) -> None:
    pool = PostgresPool(
        record.dsn, size_max=WRITERS, connect_timeout_seconds=10, statement_timeout_seconds=60
    )
    store = PostgresRecord(pool)
    batches = (_batch(n) for n in range(first, last, BATCH))

    async def write(batches: Iterator[list[AcceptedOrder]]) -> None:
        for batch in batches:
            await store.persist(batch)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(write(batches))
    finally:
        await pool.close()


def _batch(first: int) -> list[AcceptedOrder]:
    now = datetime.now(UTC)
    batch = []
    for n in range(first, first + BATCH):
        created_at = _FIRST_DAY + timedelta(hours=n % 8760)
        amount = Decimal(n % 10_000).scaleb(-2)
        order = Order(new_id(), f"Product {n % PRODUCTS}", amount, created_at)
        batch.append(AcceptedOrder(order, now, order.id))
    return batch


async def _refresh(record: Record) -> list[float]:
    await record.execute("VACUUM ANALYZE")
    connection = await record.connect()
    milliseconds = []
    try:
        for _ in range(REFRESHES):
            started = time.perf_counter()
            await connection.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY daily_sales_mv")
            milliseconds.append((time.perf_counter() - started) * 1000)
    finally:
        await connection.close()
    return milliseconds
