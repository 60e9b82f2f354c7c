"""All stores with an audit over them."""

import asyncio
from collections.abc import Sequence

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.audit import PostgresAudit
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.adapters.postgres.sales import PostgresSalesView
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.redis.contents import RedisContents
from polyglot_persistence.domain.drift import Drift
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.watch.audit import AuditFlow, Report
from polyglot_persistence.flows.watch.audit_cache import CacheAudit
from polyglot_persistence.flows.watch.audit_sales import SalesAudit
from polyglot_persistence.flows.watch.audit_search import SearchAudit
from polyglot_persistence.ports.audit import SearchContents
from polyglot_persistence.ports.search import SearchIndex
from tests.support.drift import Projections
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
        self.store = PostgresRecord(pool)
        self.record = PostgresAudit(pool)
        self.client = client
        self.cache = RedisCache(client)
        self.index = index
        self.contents = contents
        self.projections = Projections(index, contents, self.cache)
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
