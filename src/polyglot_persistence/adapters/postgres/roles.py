"""The roles of a deployment: one owns the schema, API and worker use another.

They are those of the operations page ("Roles in PostgreSQL"), by the same statements. The owner's
name is fixed here; the other role and its password come from the DSN of API and worker. The API has
the worker's role, since operators refresh, replay and discard through it.

Invariant: neither is a superuser, may create databases or roles, or bypasses row security. The
worker's role can create or drop no table, and change no order. Nobody can log in as the owner.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import asyncpg

from polyglot_persistence.adapters.postgres.locks import lock_key
from polyglot_persistence.adapters.postgres.migrate import migrate, migrating
from polyglot_persistence.errors import ConfigurationError

OWNER: Final = "polyglot_owner"

# In all statements {owner} is the role that owns the schema, {worker} that of API and worker.
BEFORE_MIGRATING: Final = (
    "GRANT {worker} TO {owner}",
    "GRANT USAGE, CREATE ON SCHEMA public TO {owner}",
    "GRANT USAGE ON SCHEMA public TO {worker}",
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public"
        " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {worker}"
    ),
)
AFTER_MIGRATING: Final = (
    "REVOKE UPDATE, DELETE ON orders FROM {worker}",
    "REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM {worker}",
    "ALTER MATERIALIZED VIEW daily_sales_mv OWNER TO {worker}",
)

_PLAIN: Final = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_LOCK: Final = lock_key("roles")

_ADOPT: Final = """
DO $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT 'TABLE ' || oid::regclass AS name FROM pg_class AS one
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
          AND relowner = current_user::regrole
          AND NOT EXISTS (
              SELECT FROM pg_depend
              WHERE classid = one.tableoid AND objid = one.oid AND deptype = 'e'
          )
        UNION ALL
        SELECT 'ROUTINE ' || oid::regprocedure FROM pg_proc AS one
        WHERE pronamespace = 'public'::regnamespace AND proowner = current_user::regrole
          AND NOT EXISTS (
              SELECT FROM pg_depend
              WHERE classid = one.tableoid AND objid = one.oid AND deptype = 'e'
          )
    LOOP
        EXECUTE 'ALTER ' || made.name || ' OWNER TO {owner}';
    END LOOP;
END
$$"""
"""Earlier versions made the schema as superuser: its objects move to the owner.

Except for those of an extension.
"""

_GRANT_WHAT_IS_THERE: Final = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {worker}",
    "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {worker}",  # for pg_dump
)

# Quoted, since asyncpg's classes are generic only in their stubs.
_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def migrate_with_roles(superuser_dsn: str, worker_dsn: str) -> Sequence[str]:
    """Bring roles and schema up to date; return the names of the migrations applied.

    Afterwards the role named in `worker_dsn` has the password given there, if any. Among several
    concurrent calls one works, and the others wait. API and worker may run meanwhile, but may lack
    a privilege until it is done.

    Raises:
        ConfigurationError: as `migrate`; or `worker_dsn` names no role, or a superuser.
        UnavailableError: as `migrate`.
    """
    parts = urlsplit(worker_dsn)
    worker, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not worker:
        raise ConfigurationError(
            "POSTGRES_DSN names no user, whose role would be made; e.g. "
            "postgresql://polyglot_worker:password@host/dbname"
        )
    async with migrating(superuser_dsn) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        return await _migrate(connection, superuser_dsn, worker, password)


async def _migrate(
    connection: _Connection, superuser_dsn: str, worker: str, password: str
) -> Sequence[str]:
    async with connection.transaction():
        login = f"LOGIN PASSWORD {await _quoted(connection, password)}" if password else "LOGIN"
        await _have_role(connection, worker, login)
        await _have_role(connection, OWNER, "NOLOGIN PASSWORD NULL")
        await _execute(connection, worker, *BEFORE_MIGRATING, _ADOPT)
    names = await migrate(_as_owner(superuser_dsn))
    async with connection.transaction():
        await _execute(connection, worker, *_GRANT_WHAT_IS_THERE, *AFTER_MIGRATING)
    return names


async def _have_role(connection: _Connection, role: str, login: str) -> None:
    is_superuser = await connection.fetchval(
        "SELECT rolsuper FROM pg_roles WHERE rolname = $1", role
    )
    if is_superuser:
        raise ConfigurationError(
            f"the role {role} of API and worker is a superuser; let POSTGRES_DSN name another "
            "one, which is made if it is missing"
        )
    verb = "CREATE" if is_superuser is None else "ALTER"
    await connection.execute(f"{verb} ROLE {_name(role)} {_PLAIN} {login}")


async def _execute(connection: _Connection, worker: str, *statements: str) -> None:
    for statement in statements:
        await connection.execute(statement.format(owner=OWNER, worker=_name(worker)))


def _name(role: str) -> str:
    doubled = role.replace('"', '""')
    return f'"{doubled}"'


async def _quoted(connection: _Connection, text: str) -> Any:
    return await connection.fetchval("SELECT quote_literal($1::text)", text)


def _as_owner(superuser_dsn: str) -> str:
    """Return a DSN whose sessions let the superuser act as the owner, with its rights only."""
    parts = urlsplit(superuser_dsn)
    query = {**dict(parse_qsl(parts.query, keep_blank_values=True)), "role": OWNER}
    return urlunsplit(parts._replace(query=urlencode(query)))
