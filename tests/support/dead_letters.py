"""The flow of dead letters over the real record and cache, for tests."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, LetterFilter, Stage
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder, new_id
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.flows.behind.dead_letters import (
    Action,
    DeadLetterFlow,
    Handled,
    Operator,
    Outcome,
)
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.flows.reading.read import ReadFlow
from polyglot_persistence.flows.reading.recent import RecentOrders
from polyglot_persistence.ports.cache import Settled, Unit
from polyglot_persistence.runtime.breaker import Breaker
from tests.support.cache import make_warm
from tests.support.orders import accepted, prepared

ALL = LetterFilter()
ME = Operator("command", "me")


class Stand:
    """The flow, what it works on, and a reader's view of it."""

    def __init__(self, pool: PostgresPool, client: RedisClient) -> None:
        self.store = PostgresRecord(pool)
        self.letters = PostgresDeadLetters(pool)
        self.cache = RedisCache(client)
        clock = SystemClock()
        self.persist = PersistFlow(self.store, self.cache, clock)
        self.flow = DeadLetterFlow(self.letters, self.store, self.cache, self.persist)
        self.reads = ReadFlow(
            self.cache,
            self.store,
            cast("Any", self),
            cache_breaker=Breaker("cache", self.cache.ping),
            clock=clock,
            record_timeout_seconds=5.0,
            recent=RecentOrders(clock, orders_max=0, seconds=0),
        )

    async def indexed_at(self, _order_id: object) -> None:
        """Nothing is ever searchable here."""

    async def bury(
        self,
        orders: Sequence[AcceptedOrder],
        *,
        stage: Stage = Stage.PERSIST,
        reason: str = "because",
    ) -> None:
        """Condemn orders for no reason, as an older version of the program may have done."""
        await self.store.bury(
            [
                DeadLetter(one.order.id, one.unit_id, payload(one), reason, stage, 1)
                for one in orders
            ]
        )
        if stage is not Stage.INDEX:
            units = [Unit([prepared(one) for one in unit]) for unit in whole_units(orders)]
            await self.cache.accept(units)
            await self.cache.settle([Settled(EntryState.DEAD, one) for one in orders])

    async def ids(self) -> Sequence[int]:
        """Return the ids of all letters, the latest first."""
        return [row.id for row in await self.letters.page(ALL, None, 100_000)]

    async def whole_run(
        self, action: Action, chosen: LetterFilter, flow: DeadLetterFlow | None = None
    ) -> list[Handled]:
        """Act on all that match, slice by slice."""
        handled: list[Handled] = []
        before: int | None = None
        while True:
            part = await (flow or self.flow).act_on_slice(action, chosen, before, ME)
            handled += part.handled
            before = part.before
            if before is None:
                return handled


@asynccontextmanager
async def standing(pool: PostgresPool, redis_url: str) -> AsyncIterator[Stand]:
    """Give the flow over an empty record and a warm cache."""
    client = RedisClient(redis_url, connect_timeout_seconds=2.0, command_timeout_seconds=2.0)
    stand = Stand(pool, client)
    await make_warm(stand.store, stand.cache)
    yield stand
    await client.close()


def payload(order: AcceptedOrder) -> bytes:
    """Return what a dead letter holds of an order."""
    return codec.encode_item(order, codec.encode_order(order.order))


def bulk(size: int) -> list[AcceptedOrder]:
    """Return the members of a bulk."""
    unit_id = new_id()
    return [accepted(1.0, name=f"b{number}", unit=(unit_id, size)) for number in range(size)]


def outcomes(handled: Sequence[Handled]) -> list[Outcome]:
    """Return what became of letters, in order."""
    return [one.outcome for one in handled]
