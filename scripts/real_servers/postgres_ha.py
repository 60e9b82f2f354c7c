"""A PostgreSQL with a standby, which an operator promotes.

    scripts/servers run postgres-b pg_ctl promote -D cluster

A server that is started beside a primary becomes its standby, by a fresh copy unless it is one
already. So a former primary that was stopped or killed rejoins by `scripts/servers up`, and does
not come back as a second primary. The two are started one after the other, the newer one first.
"""

import re
import shutil
import subprocess
from pathlib import Path

from real_servers.kinds import Postgres
from real_servers.machine import ServerError, bare_environment, run
from real_servers.server import Group

PASSWORD = "secret"  # noqa: S105  of a test server


class PostgresA(Postgres):
    """The server that is the primary at first."""

    name = "postgres-a"
    variable = "POSTGRES_A"
    started_by_name_only = True

    @property
    def cluster(self) -> Path:
        return self.data / "cluster"

    def other(self) -> Postgres:
        """Return the other server of the two."""
        return PostgresB()

    def prepare(self) -> None:
        other = self.other()
        if other.server_pid() and query(other, "SELECT pg_is_in_recovery()") == "f":
            self.follow(other)
        super().prepare()

    def follow(self, primary: Postgres) -> None:
        """Become a standby of the primary, unless this is one.

        Raises:
            ServerError: this one was promoted after that primary, which may not be used any more.
        """
        if (self.cluster / "standby.signal").exists():
            return
        newest = int(query(primary, "SELECT timeline_id FROM pg_control_checkpoint()"))
        if self.timeline() > newest:
            raise ServerError(f"{primary.name} is a former primary: stop it, then start this one")
        shutil.rmtree(self.cluster, ignore_errors=True)
        if self.become():
            run(["chown", f"{self.user}:", str(self.data)])
        dsn = f"host=127.0.0.1 port={primary.port()} user=postgres password={PASSWORD}"
        command = [self.tool("pg_basebackup"), "-D", "cluster", "-d", dsn]
        run([*self.become(), *command, "-R", "-X", "stream", "-c", "fast"], cwd=self.data)

    def timeline(self) -> int:
        """Return the timeline of this server's data, 0 if there is none."""
        if not self.cluster.exists():
            return 0
        command = [self.tool("pg_controldata"), "-D", str(self.cluster)]
        shown = subprocess.run(
            command, stdout=subprocess.PIPE, env=bare_environment(), text=True, check=True
        ).stdout
        # A promotion notes its timeline as the least to recover to, and only then a checkpoint.
        timelines = re.findall(r"(?:TimeLineID|recovery ending loc's timeline): +([0-9]+)", shown)
        return max(map(int, timelines))

    def tool(self, name: str) -> str:
        return str(Path(self.program).with_name(name))

    def options(self) -> dict[str, str]:
        # A standby that was cut off for a while can follow again.
        return {**super().options(), "wal_keep_size": "1GB"}

    def settings(self) -> dict[str, str]:
        return {f"{self.variable}_DSN": super().settings()["POSTGRES_DSN"]}


class PostgresB(PostgresA):
    """The server that is the standby at first."""

    name = "postgres-b"
    variable = "POSTGRES_B"

    def other(self) -> Postgres:
        return PostgresA()

    def prepare(self) -> None:
        if not self.cluster.exists() and not self.other().server_pid():
            raise ServerError(f"start {self.other().name} before {self.name}")
        super().prepare()


def query(server: Postgres, sql: str) -> str:
    """Return the one value of a query.

    Raises:
        ServerError: the server does not answer.
    """
    dsn = f"host=127.0.0.1 port={server.port()} user=postgres password={PASSWORD} dbname=postgres"
    done = subprocess.run(
        [str(Path(server.program).with_name("psql")), "-XAtq", "-c", sql, dsn],
        stdout=subprocess.PIPE,
        env={**bare_environment(), "PGCONNECT_TIMEOUT": "5"},
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"{server.name} does not answer; kill it if it stands still")
    return done.stdout.strip()


def settings() -> dict[str, str]:
    """Return the setting that reaches whichever server is the primary."""
    places = ",".join(f"127.0.0.1:{kind().port()}" for kind in (PostgresA, PostgresB))
    return {"POSTGRES_DSN": f"postgresql://postgres:{PASSWORD}@{places}/ecommerce"}


POSTGRES_HA = Group((PostgresA, PostgresB), settings)
