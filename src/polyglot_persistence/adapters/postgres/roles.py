"""The roles of the embedded deployment: one owns the schema, API and worker use another.

They are those of the operations page ("Roles in PostgreSQL"), by the same statements. The API has
the worker's role, since operators ask it to refresh, replay and discard.

Invariant: neither is a superuser, may make databases or roles, or sees past row security; the
worker's role makes no table, drops none, and changes no order.
"""

import secrets
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from polyglot_persistence.adapters.postgres.failures import DRIVER_ERRORS, meaning
from polyglot_persistence.adapters.postgres.migrate import CONNECT_TIMEOUT_SECONDS, migrate

OWNER: Final = "polyglot_owner"
WORKER: Final = "polyglot_worker"

BEFORE_MIGRATING: Final = (
    "GRANT polyglot_worker TO polyglot_owner",
    "GRANT USAGE, CREATE ON SCHEMA public TO polyglot_owner",
    "GRANT USAGE ON SCHEMA public TO polyglot_worker",
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE polyglot_owner IN SCHEMA public"
        " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO polyglot_worker"
    ),
)
AFTER_MIGRATING: Final = (
    "REVOKE UPDATE, DELETE ON orders FROM polyglot_worker",
    "REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM polyglot_worker",
    "ALTER MATERIALIZED VIEW daily_sales_mv OWNER TO polyglot_worker",
)

_PLAIN: Final = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"

_ADOPT: Final = """
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT 'TABLE ' || oid::regclass AS name FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
          AND relowner = current_user::regrole
        UNION ALL
        SELECT 'ROUTINE ' || oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner = current_user::regrole
    LOOP
        EXECUTE 'ALTER ' || made.name || ' OWNER TO polyglot_owner';
    END LOOP;
END
$$"""
"""Earlier versions made the schema as superuser: what it owns becomes the owner's."""

_GRANT_WHAT_IS_THERE: Final = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO polyglot_worker",
    "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO polyglot_worker",  # for pg_dump
)


async def migrate_with_roles(superuser_dsn: str, worker_password: str) -> Sequence[str]:
    """Bring roles and schema up to date; return the names of the migrations applied.

    The worker's role has the password afterwards. API and worker must not run meanwhile.

    Raises:
        ConfigurationError, UnavailableError: as `migrate`.
    """
    owner_password = secrets.token_urlsafe(24)
    try:
        connection = await asyncpg.connect(superuser_dsn, timeout=CONNECT_TIMEOUT_SECONDS)
        try:
            async with connection.transaction():
                for role, password in ((OWNER, owner_password), (WORKER, worker_password)):
                    await _have_role(connection, role, password)
                for statement in (*BEFORE_MIGRATING, _ADOPT):
                    await connection.execute(statement)
            names = await migrate(_as_role(superuser_dsn, OWNER, owner_password))
            async with connection.transaction():
                for statement in (*_GRANT_WHAT_IS_THERE, *AFTER_MIGRATING):
                    await connection.execute(statement)
            return names
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
    except DRIVER_ERRORS as error:
        raise meaning(error) from error


async def _have_role(
    connection: "asyncpg.Connection[asyncpg.Record]", role: str, password: str
) -> None:
    known = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    what = f"{'ALTER' if known else 'CREATE'} ROLE {role} {_PLAIN} PASSWORD"
    literal = await connection.fetchval("SELECT quote_literal($1::text)", password)
    await connection.execute(f"{what} {literal}")


def _as_role(dsn: str, role: str, password: str) -> str:
    parts = urlsplit(dsn)
    _, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{place}"))
