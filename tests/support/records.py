"""Records for the contract suite: PostgreSQL and the simulated one, with the same face.

A `RecordEngine` gives the ports as several processes would have them, and does to the server what
can happen to it; `Tables` looks at what is in it without the code under test.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.adapters.postgres.audit import PostgresAudit
from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.rebuild import PostgresRebuildRecord
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.adapters.postgres.sales import PostgresSalesView
from polyglot_persistence.domain.order import Order
from polyglot_persistence.ports.audit import AuditedRecord
from polyglot_persistence.ports.dead_letters import DeadLetters
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.rebuild import RebuildRecord
from polyglot_persistence.ports.record import Record
from polyglot_persistence.ports.sales import Sales, SalesView
from tests.simulation.stores.letters import SimulatedDeadLetters
from tests.simulation.stores.orders import SimulatedOrders, quarter_hour, utc_day
from tests.simulation.stores.projections import (
    SimulatedAudit,
    SimulatedRebuildRecord,
    SimulatedSales,
)
from tests.simulation.stores.record import RecordServer, add
from tests.support.record import Onlooker
from tests.support.turns import taking_turns


class LetterSeen(NamedTuple):
    """What tests compare of a dead letter."""

    order_id: UUID | None
    payload: bytes
    attempts: int


class RecordEngine(ABC):
    """One migrated record, empty at first."""

    @abstractmethod
    def store(self) -> Record:
        """Return the orders."""

    @abstractmethod
    def letters(self) -> DeadLetters:
        """Return the dead letters."""

    @abstractmethod
    def rebuild(self) -> RebuildRecord:
        """Return what a rebuild of search needs."""

    @abstractmethod
    def audit(self) -> AuditedRecord:
        """Return what an audit needs."""

    @abstractmethod
    def sales(self) -> SalesView:
        """Return what reports need."""


class Tables(ABC):
    """A look at the record."""

    @abstractmethod
    async def orders(self) -> Sequence[StoredOrder]:
        """Return all orders, by creation."""

    @abstractmethod
    async def outbox(self) -> dict[int, Sequence[UUID]]:
        """Return the rows of the outbox."""

    @abstractmethod
    async def arrivals(self) -> int:
        """Return how many rows have arrived for a rebuild."""

    @abstractmethod
    async def letters(self) -> Sequence[LetterSeen]:
        """Return the dead letters in the order of their first burial."""

    @abstractmethod
    async def age_outbox(self, age: timedelta) -> None:
        """Make all rows of the outbox older."""

    @abstractmethod
    async def assert_rollup_exact(self) -> None:
        """Compare both rollups with the sums over the orders, to the cent."""

    async def names(self) -> list[str]:
        """Return the names of all orders, sorted."""
        return sorted(row.order.product_name for row in await self.orders())


class Postgres(RecordEngine):
    """The real one, over a pool."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    def store(self) -> Record:
        return PostgresRecord(self._pool)

    def letters(self) -> DeadLetters:
        return PostgresDeadLetters(self._pool)

    def rebuild(self) -> RebuildRecord:
        return PostgresRebuildRecord(self._pool)

    def audit(self) -> AuditedRecord:
        return PostgresAudit(self._pool)

    def sales(self) -> SalesView:
        return PostgresSalesView(self._pool)


class PostgresTables(Tables):
    """The real one, by a connection of the test's own."""

    def __init__(self, seen: Onlooker) -> None:
        self._seen = seen

    async def orders(self) -> Sequence[StoredOrder]:
        rows = await self._seen.rows(
            "SELECT id, product_name, amount, created_at, accepted_at, persisted_at FROM orders"
            " ORDER BY created_at, id"
        )
        return [StoredOrder(Order(*row[:4]), *row[4:]) for row in rows]

    async def outbox(self) -> dict[int, Sequence[UUID]]:
        rows = await self._seen.rows("SELECT id, order_ids, orders FROM index_outbox")
        assert all(len(ids) == orders for _, ids, orders in rows)
        return {row_id: ids for row_id, ids, _ in rows}

    async def arrivals(self) -> int:
        orders: int = await self._seen.value("SELECT count(*) FROM rebuild_arrivals")
        return orders

    async def letters(self) -> Sequence[LetterSeen]:
        rows = await self._seen.rows(
            "SELECT order_id, payload, attempts FROM dead_letters ORDER BY id"
        )
        return [LetterSeen(*row) for row in rows]

    async def age_outbox(self, age: timedelta) -> None:
        await self._seen.rows("UPDATE index_outbox SET created_at = created_at - $1::interval", age)

    async def assert_rollup_exact(self) -> None:
        await self._seen.assert_rollup_exact()


class SimulatedRecord(RecordEngine):
    """The simulated one."""

    def __init__(self, server: RecordServer) -> None:
        self.server = server

    def store(self) -> Record:
        return taking_turns(SimulatedOrders(self.server))

    def letters(self) -> DeadLetters:
        return taking_turns(SimulatedDeadLetters(self.server))

    def rebuild(self) -> RebuildRecord:
        return taking_turns(SimulatedRebuildRecord(self.server))

    def audit(self) -> AuditedRecord:
        return taking_turns(SimulatedAudit(self.server))

    def sales(self) -> SalesView:
        return taking_turns(SimulatedSales(self.server))


class SimulatedTables(Tables):
    """The simulated one, as it is."""

    def __init__(self, server: RecordServer) -> None:
        self._server = server

    async def orders(self) -> Sequence[StoredOrder]:
        rows = self._server.orders.values()
        return sorted(rows, key=lambda row: (row.order.created_at, row.order.id))

    async def outbox(self) -> dict[int, Sequence[UUID]]:
        return {row_id: row.order_ids for row_id, row in self._server.outbox.items()}

    async def arrivals(self) -> int:
        return len(self._server.arrivals)

    async def letters(self) -> Sequence[LetterSeen]:
        rows = [self._server.letters[i].letter for i in sorted(self._server.letters)]
        return [LetterSeen(row.order_id, row.payload, row.attempts) for row in rows]

    async def age_outbox(self, age: timedelta) -> None:
        with self._server.transaction():
            for row_id, row in list(self._server.outbox.items()):
                aged = row._replace(created_at=row.created_at - age)
                self._server.outbox.put(row_id, aged)

    async def assert_rollup_exact(self) -> None:
        hours: dict[object, Sales] = {}
        products: dict[object, Sales] = {}
        for order in [row.order for row in self._server.orders.values()]:
            hour, day = quarter_hour(order.created_at), utc_day(order.created_at)
            hours[hour] = add(hours.get(hour), order.amount)
            products[day, order.product_name] = add(
                products.get((day, order.product_name)), order.amount
            )
        assert hours == dict(self._server.quarter_hours)
        assert products == dict(self._server.product_days)
