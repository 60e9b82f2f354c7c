"""The `RebuildRecord` port: the state of a search rebuild in PostgreSQL.

Why nothing is missed: the statement that would have deleted an outbox row makes it an arrival if it
sees the rebuild. If it does not, it started before the rebuild did, and so the row's orders were
committed before. A read that starts after the rebuild therefore finds them among the orders.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg

from polyglot_persistence.adapters.postgres.pool import PostgresPool, Session
from polyglot_persistence.adapters.postgres.record import stored
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.rebuild import Rebuild

COUNT_TIMEOUT_SECONDS: Final = 60.0
"""For counting all orders: more than an ordinary statement gets."""

ROWS_MAX: Final = 10_000
"""Rows read for one batch: if orders come one by one, each has a row of its own."""


class PostgresRebuildRecord:
    """`RebuildRecord` over a pool; `begin` takes a connection of its own."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def current(self) -> Rebuild | None:
        async with self._pool.reading() as session:
            record = await session.fetchrow("search_rebuild")
        return None if record is None else _rebuild(record)

    async def begin(self, index: str) -> Rebuild:
        async with self._pool.dedicated(timeout_seconds=COUNT_TIMEOUT_SECONDS) as session:
            await session.fetch("forget_arrivals")
            record = await session.fetchrow("begin_search_rebuild", index)
        assert record is not None  # noqa: S101  it returns the row
        return _rebuild(record)

    async def orders_after(self, position: UUID | None, orders_max: int) -> Sequence[StoredOrder]:
        async with self._pool.reading() as session:
            if position is None:
                return await _orders(session, "orders_first", orders_max)
            return await _orders(session, "orders_after", position, orders_max)

    async def advance(self, position: UUID, orders: int) -> None:
        await self._pool.write("advance_search_rebuild", position, orders)

    async def orders_between(self, first: UUID, last: UUID) -> Sequence[StoredOrder]:
        async with self._pool.reading() as session:
            return await _orders(session, "orders_between", first, last)

    @asynccontextmanager
    async def claim_arrivals(self, orders_max: int) -> AsyncIterator[Sequence[StoredOrder]]:
        async with self._pool.transaction() as session:
            claimed = await session.fetch("claim_arrivals", orders_max, ROWS_MAX)
            ids = [record["id"] for record in claimed]
            yield await _orders(session, "arrived_orders", ids) if ids else []
            if ids:
                await session.fetch("arrivals_done", ids)

    async def outbox_end(self) -> int:
        async with self._pool.reading() as session:
            end: int = await session.fetchval("outbox_end")
        return end

    async def outbox_between(
        self, after: int, end: int, orders_max: int
    ) -> tuple[Sequence[StoredOrder], int] | None:
        async with self._pool.reading() as session:
            rows = await session.fetch("outbox_rows_between", after, end, orders_max, ROWS_MAX)
            ids = [record["id"] for record in rows]
            if not ids:
                return None
            waiting = await session.fetch("outbox_orders", ids)
        # An id without an order is to be removed from an index; this one never had it.
        return [stored(record) for record in waiting if record["id"] is not None], ids[-1]

    async def end(self) -> None:
        async with self._pool.transaction() as session:
            await session.fetch("end_search_rebuild")
            await session.fetch("forget_arrivals")


def _rebuild(record: asyncpg.Record) -> Rebuild:
    return Rebuild(record["index_name"], record["position"], record["filled"], record["total"])


async def _orders(session: Session, query: str, *arguments: object) -> Sequence[StoredOrder]:
    return [stored(record) for record in await session.fetch(query, *arguments)]
