"""The bundled servers: what both promise to whoever starts them."""

import asyncpg

from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support.servers import valkey_command


async def test_postgres_answers_with_a_durable_commit(postgres_dsn: str) -> None:
    """The database is reached by its DSN, and a commit in it follows its fsync."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        settings = await connection.fetchrow(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('full_page_writes'), current_setting('listen_addresses')"
        )
    finally:
        await connection.close()
    assert settings is not None
    assert list(settings.values()) == ["on", "on", "on", ""]


async def test_valkey_answers_empty_and_durable(
    valkey_server: EmbeddedValkey, redis_url: str
) -> None:
    """The server behind the URL holds nothing and replies after the fsync."""
    assert redis_url.startswith("unix:///")
    assert await valkey_command(valkey_server, "DBSIZE") == b":0"
