"""PostgreSQL as tests see it: a pool for the code under test, and a plain look beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from tests.support.eventually import eventually


@asynccontextmanager
async def pool_on(
    dsn: str,
    *,
    size_max: int = 4,
    connect_timeout_seconds: float = 2.0,
    statement_timeout_seconds: float = 5.0,
) -> AsyncIterator[PostgresPool]:
    """Give a pool on the database."""
    pool = PostgresPool(
        dsn,
        size_max=size_max,
        connect_timeout_seconds=connect_timeout_seconds,
        statement_timeout_seconds=statement_timeout_seconds,
    )
    try:
        yield pool
    finally:
        await pool.close()


class Onlooker:
    """A connection of the test's own: what it sees did not pass through the code under test."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection

    async def rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Return the rows as tuples."""
        return [tuple(row) for row in await self.connection.fetch(sql, *arguments, timeout=10)]

    async def value(self, sql: str, *arguments: object) -> Any:
        """Return the first column of the first row."""
        return await self.connection.fetchval(sql, *arguments, timeout=10)

    async def execute(self, sql: str) -> None:
        """Run statements that return nothing."""
        await self.connection.execute(sql, timeout=10)

    async def blocked(self) -> int:
        """Wait until a backend of this database waits for a lock, and return its process id."""

        async def look() -> int:
            pid: int | None = await self.value(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            assert pid is not None
            return pid

        return await eventually(look)

    async def terminate(self, pid: int) -> None:
        """End a backend as an administrator would."""
        assert await self.value("SELECT pg_terminate_backend($1, 5000)", pid)

    async def assert_rollup_exact(self) -> None:
        """Compare both rollup tables with the sums over the orders, to the cent."""
        assert await self.rows(
            "SELECT date_bin('15 minutes', created_at, timestamptz 'epoch'), sum(amount), count(*)"
            " FROM orders GROUP BY 1 ORDER BY 1"
        ) == await self.rows(
            "SELECT bucket, sum(revenue), sum(orders)::bigint FROM sales_quarter_hours"
            " GROUP BY 1 ORDER BY 1"
        )
        assert await self.rows(
            "SELECT (created_at AT TIME ZONE 'UTC')::date, product_name, sum(amount), count(*)"
            " FROM orders GROUP BY 1, 2 ORDER BY 1, 2"
        ) == await self.rows(
            "SELECT day, product_name, sum(revenue), sum(orders)::bigint FROM sales_product_days"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        )


@asynccontextmanager
async def onlooker(dsn: str) -> AsyncIterator[Onlooker]:
    """Give an onlooker's connection, which a database made read-only does not keep from mending."""
    connection = await asyncpg.connect(
        dsn,
        timeout=10,
        server_settings={"TimeZone": "UTC", "default_transaction_read_only": "off"},
    )
    try:
        yield Onlooker(connection)
    finally:
        await connection.close(timeout=10)


async def empty(dsn: str) -> None:
    """Remove every row of a migrated database, and every setting of its own."""
    async with onlooker(dsn) as seen:
        await seen.execute(
            "TRUNCATE orders, sales_quarter_hours, sales_product_days, view_refreshes,"
            " index_outbox, dead_letters, suspects, cache_epoch, persisted_orders,"
            " search_rebuild, rebuild_arrivals;"
            "REFRESH MATERIALIZED VIEW daily_sales_mv"
        )
        await seen.execute(
            f"ALTER DATABASE {await seen.value('SELECT current_database()')} RESET ALL"
        )
