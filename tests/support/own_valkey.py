"""A Valkey on a port of the loopback, with a configuration and a log that a test may change."""

import os
import signal
from pathlib import Path
from typing import Any

from polyglot_persistence.embedded.valkey import DATA, EmbeddedValkey
from tests.support.patience import patiently
from tests.support.processes import eventually, free_port
from tests.support.servers import redis_value


class OwnValkey(EmbeddedValkey):
    """The bundled server, which others can reach: replicas, and proxies that lead to it."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.data_dir = data_dir
        self.port = free_port()
        self.lines = ["repl-diskless-sync-delay 0"]
        """Of its configuration, from its next start on."""

    @property
    def url(self) -> str:
        """Where it listens, the same after each start."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def say(self, *words: str) -> Any:
        """Have it do a command; return the reply."""
        return await redis_value(self.url, *words)

    async def kill(self) -> None:
        """End it without a word."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        await eventually(lambda: not self.running, what="its end")

    def log_bytes(self) -> int:
        """Return how much it has logged since it last rewrote its log."""
        return self._log().stat().st_size

    def lose_log_after(self, size_bytes: int) -> None:
        """Cut off what it has logged since then, as a loss of power does; it must not run."""
        assert not self.running
        assert self.log_bytes() > size_bytes
        os.truncate(self._log(), size_bytes)

    async def follow(self, port: int) -> None:
        """Become the replica of the server behind a port; return once it has all of its data."""
        await self.say("REPLICAOF", "127.0.0.1", str(port))

        async def attempt() -> None:
            assert b"master_link_status:up" in await self.say("INFO", "replication")

        await patiently(attempt)

    async def lead(self) -> None:
        """Become a primary."""
        await self.say("REPLICAOF", "NO", "ONE")

    @property
    def log_directory(self) -> Path:
        """Where its log is."""
        return self.data_dir / DATA / "appendonlydir"

    def _log(self) -> Path:
        return max(self.log_directory.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)

    def _configuration(self, data_dir: Path, socket: Path) -> str:
        own = [f"port {self.port}", "bind 127.0.0.1", *self.lines]
        return super()._configuration(data_dir, socket) + "".join(f"{line}\n" for line in own)
