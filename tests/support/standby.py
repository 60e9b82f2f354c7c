"""A PostgreSQL and its standby, made of the bundled server: killed, frozen, promoted, cut off.

Each keeps its socket, and with it its address, over every restart.
"""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from polyglot_persistence.adapters.postgres.migrate import migrate
from polyglot_persistence.embedded.directory import hand_over
from polyglot_persistence.embedded.identity import Identity
from polyglot_persistence.embedded.postgres import CLUSTER, EmbeddedPostgres
from polyglot_persistence.embedded.server import bare_environment
from tests.support.eventually import eventually
from tests.support.processes import alive, descendants
from tests.support.record import onlooker
from tests.support.servers import copy_directory, running, short_directory

COPY_SECONDS = 60.0


class ReplicatedPostgres(EmbeddedPostgres):
    """A server that others may follow; with a primary, a standby that follows it."""

    def __init__(self, data_dir: Path, primary: "ReplicatedPostgres | None" = None) -> None:
        super().__init__(data_dir)
        self._primary = primary

    async def _settle_cluster(self, install: Path, identity: Identity) -> None:
        files = self._directory.files()
        if self._primary is not None and files.make(CLUSTER):
            hand_over(files, CLUSTER, identity.uid, identity.gid)
            copy = (install / "bin" / "pg_basebackup", "-D", self._cluster, "-d", self._primary.dsn)
            await self.child.run(
                [*copy, "-R", "-X", "stream", "-c", "fast"],
                bare_environment(),
                timeout_seconds=COPY_SECONDS,
                identity=identity,
                owns=[self._cluster],
            )
            files.write("password", self._primary._password)
        await super()._settle_cluster(install, identity)
        allowed = "local all,replication all scram-sha-256\n"
        (self._cluster / "pg_hba.conf").write_text(allowed)

    def family(self) -> list[int]:
        """Return the ids of the server's processes."""
        assert self.pid is not None
        return [self.pid, *descendants(self.pid)]

    async def killed(self) -> None:
        """End it without a word, and wait until all of it is gone."""
        family = self.family()
        os.kill(family[0], signal.SIGKILL)

        async def gone() -> None:
            assert not self.running
            assert not any(map(alive, family))

        await eventually(gone, within_seconds=30)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of it, so that it keeps its connections and says nothing."""
        family = self.family()
        for pid in family:
            signal_if_there(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in family:
                signal_if_there(pid, signal.SIGCONT)

    async def promote(self) -> None:
        """Make a standby the primary, and wait until it takes orders."""
        async with onlooker(self.dsn) as seen:
            assert await seen.value("SELECT pg_promote()")


class Pair:
    """A migrated primary and its standby, which follows it without being waited for."""

    def __init__(self, primary: ReplicatedPostgres, standby: ReplicatedPostgres) -> None:
        self.primary = primary
        self.standby = standby

    @property
    def dsn(self) -> str:
        """A DSN that names both, the primary first."""
        return both(self.primary.dsn, self.standby.dsn)

    async def caught_up(self) -> None:
        """Wait until the standby has replayed all that the primary has written."""
        async with onlooker(self.primary.dsn) as there, onlooker(self.standby.dsn) as here:
            written = await there.value("SELECT pg_current_wal_flush_lsn()::text")

            async def replayed() -> None:
                lacking = "SELECT $1::text::pg_lsn - pg_last_wal_replay_lsn()"
                assert await here.value(lacking, written) <= 0

            await eventually(replayed, within_seconds=30)

    async def cut_off(self) -> None:
        """Let the standby receive nothing more."""
        async with onlooker(self.standby.dsn) as here:
            await here.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await here.execute("SELECT pg_reload_conf()")

            async def ended() -> None:
                assert not await here.value("SELECT count(*) FROM pg_stat_wal_receiver")

            await eventually(ended, within_seconds=30)


def both(first: str, second: str) -> str:
    """Return a DSN that names the servers of two DSNs on sockets."""
    hosts = ",".join(parse_qs(urlsplit(one).query)["host"][0] for one in (first, second))
    return f"{first.partition('?')[0]}?host={hosts}&port=5432"


def signal_if_there(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@asynccontextmanager
async def pair_of_servers(stopped: Path) -> AsyncIterator[Pair]:
    """Start a copy of a stopped server, and its standby; stop what still runs in the end."""
    with short_directory() as directory:
        copy_directory(stopped, directory / "one")
        primary = ReplicatedPostgres(directory / "one")
        standby = ReplicatedPostgres(directory / "two", primary)
        async with running(primary):
            await migrate(primary.dsn)
            async with running(standby):
                yield Pair(primary, standby)
