"""The project's own processes in the embedded deployment: API and worker, as their own user."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from polyglot_persistence.embedded.child import Child
from polyglot_persistence.embedded.directory import Directory, hand_over
from polyglot_persistence.embedded.identity import (
    CAP_NET_BIND_SERVICE,
    Account,
    Identity,
    identity_for,
)
from polyglot_persistence.processes.heartbeat import READY, Heartbeats

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
        self._heartbeats = Heartbeats()
        self._signs = b""
        self.child = Child(
            command,
            directory=lambda: files,
            lock_name=f"{command}.lock",
            stops=[(signal.SIGTERM, stop_timeout_seconds)],
        )

    async def start(self) -> None:
        """Start it."""
        self._heartbeats.received()  # what is left of the predecessor's
        await self.child.start(
            command(self.name, "--parent-fd", str(self._heartbeats.descriptor)),
            self._environment(),
            identity=self._identity(),
            owns=[self._owns],
            inherited=[self._heartbeats.descriptor],
        )

    async def stop(self) -> None:
        """End it and wait for its end."""
        await self.child.stop()

    async def is_alive(self) -> bool:
        """Whether it has given a sign of life since the last call."""
        signs = self._signs + self._heartbeats.received()
        self._signs = b""
        return signs != b""

    def is_ready(self) -> bool:
        """Whether it has announced that it does its work; asked until so, and not again."""
        self._signs += self._heartbeats.received()
        return READY in self._signs


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
