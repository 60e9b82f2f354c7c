"""PostgreSQL 15 or newer, over asyncpg: the system of record, the sales view, the schema."""
