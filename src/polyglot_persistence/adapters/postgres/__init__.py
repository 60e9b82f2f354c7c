"""PostgreSQL 15 or newer, over asyncpg: the system of record, the sales view, the schema."""

from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.sales import PostgresSalesView
from polyglot_persistence.adapters.postgres.store import PostgresOrderStore

__all__ = ["PostgresOrderStore", "PostgresPool", "PostgresSalesView", "migrate"]
