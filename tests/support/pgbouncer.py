"""A PgBouncer of a test's own before a PostgreSQL (Debian: package `pgbouncer`)."""

import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import pytest

from tests.support.eventually import eventually
from tests.support.processes import free_port, started
from tests.support.servers import short_directory

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
NEEDS_PGBOUNCER = pytest.mark.skipif(
    PGBOUNCER is None and os.environ.get("REQUIRE_SERVERS") != "1",
    reason="pgbouncer is not installed (Debian: pgbouncer)",
)


@asynccontextmanager
async def pgbouncer(dsn: str, **settings: str) -> AsyncIterator[str]:
    """Run a PgBouncer with these settings, and give the DSN by which it leads to the database."""
    assert PGBOUNCER is not None, "install pgbouncer"
    server = urlsplit(dsn)
    user, password, name = (
        unquote(part or "") for part in (server.username, server.password, server.path[1:])
    )
    host = parse_qs(server.query).get("host", [server.hostname or ""])[0]
    port = free_port()
    with short_directory() as directory:
        directory.chmod(0o755)
        users, configuration = directory / "users", directory / "pgbouncer.ini"
        users.write_text(f'"{user}" "{password}"\n')
        configuration.write_text(
            _ini(
                f"{name} = host={host} port={server.port or 5432}",
                {
                    "listen_addr": "127.0.0.1",
                    "listen_port": str(port),
                    "unix_socket_dir": "",
                    "auth_type": "scram-sha-256",
                    "auth_file": str(users),
                    "admin_users": user,
                    **settings,
                },
            )
        )
        pooled = f"postgresql://{user}:{password}@127.0.0.1:{port}/{name}?sslmode=disable"
        with started([*_as_nobody(), PGBOUNCER, configuration]) as process:

            async def answers() -> None:
                assert process.code is None, process.log()
                connection = await asyncpg.connect(pooled, timeout=2)
                connection.terminate()

            try:
                await eventually(answers, within_seconds=10, retried=(OSError,))
            except Exception as error:
                error.add_note(process.log())
                raise
            yield pooled


def _as_nobody() -> Sequence[str]:
    """Return what makes root somebody else, as PgBouncer demands, who gets to every socket."""
    if os.geteuid():
        return []
    words = "--reuid=nobody --regid=nogroup --clear-groups --inh-caps=+dac_override"
    return ["setpriv", *words.split(), "--ambient-caps=+dac_override"]


def _ini(database: str, settings: Mapping[str, str]) -> str:
    lines = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join(["[databases]", database, "[pgbouncer]", *lines, ""])
