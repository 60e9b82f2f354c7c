"""All stores with an audit over them, and drift of every kind planted in them."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import asyncpg

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.audit import PostgresAudit
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.sales import PostgresSalesView
from polyglot_persistence.adapters.postgres.store import PostgresOrderStore
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.redis.contents import RedisContents
from polyglot_persistence.domain.checksum import checksum
from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.flows.audit import AuditFlow, Report
from polyglot_persistence.flows.audit_cache import CacheAudit
from polyglot_persistence.flows.audit_sales import SalesAudit
from polyglot_persistence.flows.audit_search import SearchAudit
from polyglot_persistence.flows.index import IndexFlow
from polyglot_persistence.flows.persist import PersistFlow
from polyglot_persistence.ports import SearchIndex, Settled, StoredOrder
from polyglot_persistence.ports.audit import SearchContents
from tests.support.eventually import eventually
from tests.support.orders import accepted

RANGE_ORDERS = 100


class AuditStand:
    """The flows of a worker and of an audit, over the same stores."""

    def __init__(
        self,
        pool: PostgresPool,
        client: RedisClient,
        index: SearchIndex,
        contents: SearchContents,
    ) -> None:
        clock = SystemClock()
        self.store = PostgresOrderStore(pool)
        self.record = PostgresAudit(pool)
        self.cache = RedisCache(client)
        self.index = index
        self.contents = contents
        self.view = PostgresSalesView(pool)
        self.persist = PersistFlow(self.store, self.cache, clock)
        self.indexing = IndexFlow(self.store, index, clock)
        self.sales = SalesAudit(self.record, self.view)
        self.flow = AuditFlow(
            self.record,
            self.store,
            search=SearchAudit(self.record, contents, clock, range_orders=RANGE_ORDERS),
            cache=CacheAudit(self.cache, RedisContents(client), self.store, self.persist),
            sales=self.sales,
            clock=clock,
        )

    async def audit(self, repaired: frozenset[Drift] = frozenset()) -> Report:
        """Compare everything; with repair also work off the outbox."""

        async def pace(_orders: int) -> bool:
            return True

        async def work_off() -> int:
            return await self.indexing.work_off_outbox(0.0, 5_000)

        return await self.flow.run(pace, repaired=repaired, work_off=work_off if repaired else None)

    async def place(self, orders: Sequence[AcceptedOrder]) -> None:
        """Let orders go all the way, as a worker does."""
        await self.indexing.index(await self.persist.persist(orders, "queue"))

    async def shown(self, present: Sequence[Order], absent: Sequence[Order]) -> None:
        """Wait until search shows orders as they are given, and others not."""
        ids = [order.id for order in (*present, *absent)]

        async def attempt() -> None:
            assert await self.contents.checksums_of(ids) == {o.id: checksum(o) for o in present}

        await eventually(attempt, within_seconds=10)

    async def traffic(self, stop: asyncio.Event) -> int:
        """Place small batches until told to stop; return how many orders."""
        placed = 0
        while not stop.is_set():
            await self.place([accepted(placed % 90_000, name=f"p{placed % 7}") for _ in range(5)])
            placed += 5
        return placed


def new_orders(orders: int) -> list[AcceptedOrder]:
    """Return orders evenly over twelve days and a hundred products."""
    return [
        accepted(
            n * 12 * 86_400 // orders, name=f"product {n % 100}", amount=f"{n % 900}.{n % 100:02}"
        )
        for n in range(orders)
    ]


def altered(one: AcceptedOrder) -> Order:
    """Return the order with another amount, which is not in the record."""
    order = one.order
    return Order(order.id, order.product_name, order.amount + Decimal("0.01"), order.created_at)


async def plant(
    stand: AuditStand,
    seen: "asyncpg.Connection[asyncpg.Record]",
    placed: Sequence[AcceptedOrder],
    each: int,
) -> dict[Drift, int]:
    """Spoil `each` of every kind, each in orders of its own; return what is to be found."""
    parts = [placed[n * each : (n + 1) * each] for n in range(3)]
    missing, changed, stale = parts
    assert len(stale) == each
    await stand.index.remove([one.order.id for one in missing])
    await stand.index.index(
        [StoredOrder(altered(one), one.accepted_at, one.accepted_at) for one in changed]
    )
    extra = [accepted(n, name="ghost") for n in range(each)]
    await stand.index.index(
        [StoredOrder(one.order, one.accepted_at, one.accepted_at) for one in extra]
    )
    lie = [AcceptedOrder(altered(one), one.accepted_at, one.order.id) for one in stale]
    lost = [accepted(n, name="lost", order_id=new_id()) for n in range(each)]
    await stand.cache.settle([Settled(EntryState.CLEAN, one) for one in (*lie, *lost)])
    await stand.shown(
        [*[altered(one) for one in changed], *[one.order for one in extra]],
        [one.order for one in missing],
    )
    return {
        Drift.MISSING_DOCUMENT: each,
        Drift.CHANGED_DOCUMENT: each,
        Drift.EXTRA_DOCUMENT: each,
        Drift.STALE_ENTRY: each,
        Drift.LOST_ORDER: each,
        Drift.WRONG_QUARTER_HOUR: await _spoil(seen, "sales_quarter_hours", ("bucket",), each),
        Drift.WRONG_PRODUCT_DAY: await _spoil(
            seen, "sales_product_days", ("day", "product_name"), each
        ),
    }


async def _spoil(
    seen: "asyncpg.Connection[asyncpg.Record]", table: str, key: Sequence[str], cells_max: int
) -> int:
    """Make cells wrong, each in one of its slots; return how many."""
    columns = ", ".join(key)
    own, chosen = (", ".join(f"{of}.{column}" for column in (*key, "slot")) for of in "ab")
    async with seen.transaction():
        await seen.execute(f"LOCK TABLE {table}")
        spoilt = await seen.fetch(
            f"UPDATE {table} AS a SET revenue = revenue + 1.23"
            f" FROM (SELECT DISTINCT ON ({columns}) {columns}, slot FROM {table}"
            f" ORDER BY {columns} LIMIT {cells_max}) AS b"
            f" WHERE ({own}) = ({chosen}) RETURNING 1"
        )
    return len(spoilt)
