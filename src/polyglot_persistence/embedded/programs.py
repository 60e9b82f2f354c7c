"""The project's own processes in the embedded deployment: API and worker, as their own user."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from polyglot_persistence.embedded.child import Child
from polyglot_persistence.embedded.directory import Directory, hand_over
from polyglot_persistence.embedded.identity import (
    CAP_NET_BIND_SERVICE,
    Account,
    Identity,
    identity_for,
)

SEARCH = "search"
"""The one directory that API and worker write."""

MIGRATION_TIMEOUT_SECONDS = 3_600.0
"""For all migrations of a large directory."""

MIGRATION_STOP_SECONDS = 5.0
"""Cut off, it leaves the migration under way undone."""

_UNPRIVILEGED_PORT_MIN = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class Program:
    """One of this project's own processes, as `polyglot api` starts it."""

    def __init__(
        self,
        command: str,
        files: Directory,
        identity: Callable[[], Identity],
        environment: Callable[[], Mapping[str, str]],
        stop_timeout_seconds: float,
    ) -> None:
        self.name = command
        self._identity = identity
        self._environment = environment
        self._owns = files.path / SEARCH
        self._child = Child(
            command,
            directory=lambda: files,
            lock_name=f"{command}.lock",
            stops=[(signal.SIGTERM, stop_timeout_seconds)],
        )

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._child.running

    def exit_text(self) -> str:
        """Return in words how it ended."""
        return self._child.exit_text()

    async def reap(self) -> None:
        """Return when nothing of it that an earlier owner has left behind runs any more."""
        await self._child.reap()

    async def start(self) -> None:
        """Start it."""
        await self._start()

    async def stop(self) -> None:
        """End it and wait for its end."""
        await self._child.stop()

    async def _start(self, *options: str, inherited: Sequence[int] = ()) -> None:
        await self._child.start(
            command(self.name, *options),
            self._environment(),
            identity=self._identity(),
            owns=[self._owns],
            inherited=inherited,
        )


class Worker(Program):
    """The worker, which announces that it consumes (`--ready-fd`)."""

    has_consumed = False
    """Whether a process of it has announced so."""

    async def start(self) -> None:
        """Start it, and listen for what it announces."""
        source, descriptor = os.pipe()
        asyncio.get_running_loop().add_reader(source, self._hear, source)
        try:
            await self._start("--ready-fd", str(descriptor), inherited=[descriptor])
        finally:
            os.close(descriptor)

    def _hear(self, source: int) -> None:
        """Take the announcement, or the end of the process without one."""
        self.has_consumed |= os.read(source, 1) != b""
        asyncio.get_running_loop().remove_reader(source)
        os.close(source)


async def migrate(files: Directory, environment: Mapping[str, str]) -> None:
    """Bring roles and schema up to date, as the servers' user.

    The environment names the superuser and the role of API and worker, as `polyglot migrate` wants.

    Raises:
        ConfigurationError: it failed; its own last line says why.
    """
    child = Child(
        "migrate",
        directory=lambda: files,
        lock_name="migrate.lock",
        stops=[(signal.SIGTERM, MIGRATION_STOP_SECONDS)],
    )
    await child.run(
        command("migrate", "--log"),
        environment,
        timeout_seconds=MIGRATION_TIMEOUT_SECONDS,
        identity=identity_for(Account.SERVERS, files, needed()),
    )


def command(*arguments: str) -> list[str]:
    """Return the command line of one of this project's programs."""
    # -P: a module of the directory that one stands in must not be taken for a library's.
    return [sys.executable, "-P", "-m", "polyglot_persistence", *arguments]


def needed() -> list[Path]:
    """Return what has to be reached to run this project's programs."""
    # The first entry is where the script lies, or where one stands; `command` leaves it out.
    found = sys.path if sys.flags.safe_path else sys.path[1:]
    paths = dict.fromkeys((sys.executable, sys.prefix, sys.base_prefix, *found))
    return [Path(path) for path in paths if os.access(path, os.F_OK)]


def program_identity(files: Directory, port: int) -> Identity:
    """Return as whom API and worker run, and give that user the directory that they write."""
    identity = identity_for(Account.PROGRAMS, files, needed())
    files.make(SEARCH)
    hand_over(files, SEARCH, identity.uid, identity.gid)
    if _UNPRIVILEGED_PORT_MIN.exists() and port < int(_UNPRIVILEGED_PORT_MIN.read_text()):
        return identity.allowed(CAP_NET_BIND_SERVICE)
    return identity
