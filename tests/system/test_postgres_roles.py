"""The roles of the operations page: API and worker run with no more rights than it grants."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres import roles
from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import ConfigurationError
from tests.support.api import Api
from tests.support.documents import ROOT, blocks
from tests.support.eventually import eventually
from tests.support.keys import ENVIRONMENT
from tests.support.processes import free_port, started
from tests.support.servers import running

pytestmark = pytest.mark.timeout(180)

WITHIN_SECONDS = 60.0


@pytest_asyncio.fixture
async def postgres(directory: Path) -> AsyncIterator[str]:
    """A server with the page's roles; the DSN is its superuser's."""
    before, after = [text.replace("change me", "secret") for text in statements_of_the_page()]
    async with running(EmbeddedPostgres(directory / "postgres")) as server:
        dsn = server.dsn
        await execute(dsn, before)
        assert await migrate(as_role(dsn, "polyglot_owner"))
        await execute(dsn, after)
        yield dsn


def statements_of_the_page() -> list[str]:
    """Return what the page says to run before migrating, and after."""
    return [
        block.text
        for block in blocks(ROOT / "docs" / "ops.md")
        if block.language == "sql"
        and ("CREATE ROLE polyglot" in block.text or "OWNER TO polyglot" in block.text)
    ]


@pytest.mark.parametrize("moment", [0, 1], ids=["before migrating", "after migrating"])
def test_the_embedded_deployment_has_the_roles_of_the_page(moment: int) -> None:
    """By the same statements, though the page has a role more."""
    statements = (roles.BEFORE_MIGRATING, roles.AFTER_MIGRATING)[moment]
    page = " ".join(statements_of_the_page()[moment].split())
    assert statements
    named = [one.format(owner=roles.OWNER, worker="polyglot_worker") for one in statements]
    assert [one for one in named if one not in page] == []


def as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    _, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{role}:secret@{place}"))


async def execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await connection.execute(sql)
    finally:
        await connection.close(timeout=10)


async def test_api_and_worker_need_no_more_than_the_page_grants(
    postgres: str, directory: Path
) -> None:
    """Accept, persist, index, read, search and refresh; and nothing may touch an order."""
    async with running(EmbeddedValkey(directory / "valkey")) as valkey:
        api = Api(free_port())
        common = {
            **ENVIRONMENT,
            "REDIS_ADDR": valkey.url,
            "RABBITMQ_URL": valkey.url,
            "ELASTICSEARCH_URL": f"tantivy://{directory}/search",
            "API_HOST": "127.0.0.1",
            "API_PORT": str(api.port),
            "MV_REFRESH_SCHEDULE": "@every 1s",
        }
        command = [sys.executable, "-m", "polyglot_persistence"]
        environments = {
            name: {**common, "POSTGRES_DSN": as_role(postgres, f"polyglot_{name}")}
            for name in ("api", "worker")
        }
        with (
            started([*command, "worker"], environment=environments["worker"]) as worker,
            started([*command, "api"], environment=environments["api"]) as serving,
        ):

            async def ready() -> None:
                health = (await api.request("GET", "/health/ready")).json
                assert health["mode"] == "normal"

            await eventually(
                ready, within_seconds=WITHIN_SECONDS, retried=(OSError, AssertionError)
            )
            order_id = await api.order("Milk", "1.25")
            await api.persisted(order_id)

            async def searchable_and_counted() -> None:
                assert (await api.request("GET", "/api/search?q=milk")).json["total"] == 1
                (day,) = (await api.request("GET", "/api/dashboard/sales")).json
                assert day["orders"] == 1

            await eventually(
                searchable_and_counted,
                within_seconds=WITHIN_SECONDS,
                retried=(AssertionError, ValueError, KeyError),
            )
            page = (await api.request("GET", "/api/orders")).json
            assert [order["id"] for order in page["orders"]] == [order_id]
            refused = await api.request("POST", "/api/admin/refresh")
            assert refused.status == 503
            assert "lacks a privilege" not in worker.log(), worker.log()[-3000:]
            assert "not_prepared" not in worker.log() + serving.log()


FORBIDDEN = [
    ("worker", "UPDATE orders SET amount = 0"),
    ("worker", "DELETE FROM orders"),
    ("worker", "DROP TABLE orders"),
    ("worker", "CREATE TABLE mine (id int)"),
    ("worker", "DELETE FROM schema_migrations"),
    ("api", "INSERT INTO orders SELECT * FROM orders"),
    ("api", "DELETE FROM dead_letters"),
    ("api", "UPDATE index_outbox SET orders = 0"),
    ("api", "DELETE FROM cache_epoch"),
    ("api", "CREATE TABLE mine (id int)"),
]


async def test_a_role_may_do_nothing_else(postgres: str) -> None:
    """Whoever takes over a process cannot change what was persisted."""
    for role, statement in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await execute(as_role(postgres, f"polyglot_{role}"), statement)


# --- by one command


@pytest_asyncio.fixture
async def superuser(directory: Path) -> AsyncIterator[str]:
    """The DSN of a server that nobody has used yet."""
    async with running(EmbeddedPostgres(directory / "postgres")) as server:
        yield server.dsn


def of(dsn: str, role: str, password: str) -> str:
    """Return the DSN as another role."""
    parts = urlsplit(dsn)
    login = f"{quote(role, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


async def test_the_command_of_the_page_makes_the_roles(superuser: str) -> None:
    """And migrates; as often as it is run, also what a superuser's schema was."""
    (text,) = (
        block.text
        for block in blocks(ROOT / "docs" / "ops.md")
        if block.language == "bash" and "POSTGRES_SUPERUSER_DSN" in block.text
    )
    worker = of(superuser, "polyglot_worker", "change-me")
    replaced, number = re.subn(
        r"postgresql://(\w+):(\S+)@record/ecommerce",
        lambda match: superuser if match[1] == "postgres" else of(superuser, match[1], match[2]),
        text,
    )
    assert number == 2
    await migrate(superuser)  # as versions before

    def run() -> str:
        bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-ec", replaced],
            env={**os.environ, "PATH": bin_first},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    for _ in range(2):
        assert "up to date" in await asyncio.to_thread(run)
        for role, statement in FORBIDDEN:
            if role == "worker":
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await execute(worker, statement)
        for statement in (
            "REFRESH MATERIALIZED VIEW daily_sales_mv",
            "DELETE FROM index_outbox",
            "SELECT count(*) FROM orders",
        ):
            await execute(worker, statement)
        assert await migrate(worker) == []


@pytest.mark.parametrize(
    ("role", "password"),
    [
        ("polyglot_worker", "secret"),
        ('order\'s "clerk" {worker}', "pa ss'w\\o\"r%d:/@#$&"),
        ("user", "пароль"),
    ],
)
async def test_role_and_password_are_those_of_the_dsn(
    role: str, password: str, superuser: str
) -> None:
    """Whatever stands in them; many at once are as one, and nobody logs in as the owner."""
    dsn = of(superuser, role, password)
    done = await asyncio.gather(
        *(roles.migrate_with_roles(superuser, dsn) for _ in range(3)),
    )
    assert sorted(map(bool, done)) == [False, False, True]
    await execute(dsn, "REFRESH MATERIALIZED VIEW daily_sales_mv")
    other = of(superuser, role, "another")
    await roles.migrate_with_roles(superuser, other)
    await execute(other, "SELECT 1")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await execute(dsn, "SELECT 1")
    for secret in (password, "another", ""):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await execute(of(superuser, roles.OWNER, secret), "SELECT 1")


async def test_no_superuser_is_made_a_plain_role(superuser: str) -> None:
    """One that POSTGRES_DSN still names; and what belongs to somebody else stays theirs."""
    await execute(superuser, "CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'secret'")
    for dsn in (superuser, of(superuser, "boss", "secret")):
        with pytest.raises(ConfigurationError, match="is a superuser; let POSTGRES_DSN name"):
            await roles.migrate_with_roles(superuser, dsn)
    with pytest.raises(ConfigurationError, match="POSTGRES_DSN names no user"):
        await roles.migrate_with_roles(superuser, "postgresql://host/dbname")
    await execute(
        superuser, "CREATE ROLE other; CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO other"
    )
    await roles.migrate_with_roles(superuser, of(superuser, "polyglot_worker", "secret"))
    await execute(of(superuser, "boss", "secret"), "CREATE DATABASE still_a_superuser")
    connection = await asyncpg.connect(superuser, timeout=10)
    try:
        owners = await connection.fetch(
            "SELECT DISTINCT tableowner::text AS name FROM pg_tables WHERE schemaname = 'public'"
        )
    finally:
        await connection.close(timeout=10)
    assert {owner["name"] for owner in owners} == {"other", roles.OWNER}
