"""The bundled Valkey alone: durable, bounded, and at peace with a torn log."""

import os
import signal
from pathlib import Path

from polyglot_persistence.embedded.valkey import DATA, EmbeddedValkey
from tests.support.processes import alive, descendants, eventually
from tests.support.servers import redis_command, running, short_directory


async def test_a_reply_follows_its_fsync_and_dirty_data_is_never_evicted(
    valkey_server: EmbeddedValkey,
) -> None:
    """The settings on which the promises stand are in force, and nothing listens on a port."""
    for name, value in (
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "volatile-ttl"),
        ("maxmemory", str(1024**3)),
        ("port", "0"),
    ):
        found = await redis_command(valkey_server.url, "CONFIG", "GET", name)
        assert found == [name.encode(), value.encode()]


async def test_a_torn_log_costs_only_what_was_torn() -> None:
    """A last command that was half-written was never acknowledged; all before it is there."""
    with short_directory() as directory:
        async with running(EmbeddedValkey(directory / "data")) as server:
            await redis_command(server.url, "SET", "kept", "1")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: not server.running)
            with _log(directory).open("ab") as log:
                log.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")
            await server.start()
            assert await redis_command(server.url, "EXISTS", "kept", "to") == 1


async def test_a_rewrite_that_outlives_its_killed_server_does_not_hinder_the_next() -> None:
    """The log is rewritten by a process of its own, which must not write beside the next server."""
    with short_directory() as directory:
        async with running(EmbeddedValkey(directory / "data")) as server:
            await redis_command(server.url, "SET", "kept", "1")
            await redis_command(server.url, "CONFIG", "SET", "rdb-key-save-delay", "60000000")
            await redis_command(server.url, "BGREWRITEAOF")
            assert server.pid is not None
            await eventually(lambda: len(descendants(server.pid or 0)) == 1)
            (rewriter,) = descendants(server.pid)
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: not server.running)
            assert alive(rewriter)
            await server.start()
            assert not alive(rewriter)
            assert await redis_command(server.url, "EXISTS", "kept") == 1


def _log(directory: Path) -> Path:
    (log,) = (directory / "data" / DATA / "appendonlydir").glob("*.incr.aof")
    return log
