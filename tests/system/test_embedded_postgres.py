"""The bundled PostgreSQL alone: what a crash, another version or a lost file leave behind."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.identity import Account, Identity, account_uid, identity_for
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.errors import ConfigurationError
from tests.support.addresses import BUNDLED_POSTGRES
from tests.support.processes import REPOSITORY, eventually, started
from tests.support.servers import copy_directory, running, short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
def data(directory: Path, stopped_postgres: Path) -> Path:
    """The data directory of a server that was stopped."""
    copy_directory(stopped_postgres, directory / "data")
    return directory / "data"


@BUNDLED_POSTGRES
async def test_a_commit_is_durable_and_nothing_listens(postgres_dsn: str) -> None:
    """A commit follows its fsync, and there is no port."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        settings = await connection.fetchrow(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('full_page_writes'), current_setting('listen_addresses')"
        )
    finally:
        await connection.close()
    assert settings is not None
    assert list(settings.values()) == ["on", "on", "on", ""]


@BUNDLED_POSTGRES
async def test_a_wrong_password_is_refused(postgres_dsn: str) -> None:
    """The socket alone lets nobody in."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_dsn, password="guess")


async def test_a_stale_pid_file_of_a_living_stranger_is_ignored(data: Path) -> None:
    """The process id of a crashed server may by now be another program's."""
    server = EmbeddedPostgres(data)
    async with running(server):
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: not server.running)
        pid_file = data / "cluster" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getppid()), *lines[1:], ""]))
        await server.start()
        assert await _one(server) == 1


async def test_an_unfinished_first_start_is_done_again(directory: Path) -> None:
    """An owner killed while the cluster was being written leaves nothing that hinders the next."""
    program = str(REPOSITORY / "tests" / "support" / "own_server.py")
    command = [sys.executable, "-B", program, "postgres", str(directory / "data")]
    unfinished = directory / "data" / "cluster.new" / "base"
    with started(command, stdin=subprocess.PIPE) as owner:
        await eventually(unfinished.exists)
        owner.send(signal.SIGKILL)
        async with running(EmbeddedPostgres(directory / "data")) as server:
            assert await _one(server) == 1
    assert not unfinished.parent.exists()


async def test_a_lost_password_is_made_anew(data: Path) -> None:
    """Whoever owns the directory owns the data; the file is only how clients are told."""
    async with running(EmbeddedPostgres(data)) as server:
        before = server.dsn
    (data / "password").unlink()
    async with running(EmbeddedPostgres(data)) as server:
        assert server.dsn != before
        assert await _one(server) == 1
    assert (data / "password").stat().st_mode & 0o777 == 0o600


async def test_data_of_another_version_is_refused(data: Path) -> None:
    """A cluster that this server cannot read is named with its version, and left as it is."""
    version = data / "cluster" / "PG_VERSION"
    version.write_text("14\n")
    with pytest.raises(ConfigurationError, match="written by PostgreSQL 14"):
        await EmbeddedPostgres(data).start()
    version.unlink()
    with pytest.raises(ConfigurationError, match="holds no PostgreSQL data"):
        await EmbeddedPostgres(data).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
@pytest.mark.parametrize("account", list(Account))
def test_root_becomes_a_user_of_its_own_with_no_more_rights_than_it_takes(
    account: Account, directory: Path
) -> None:
    """A capability is kept only where directories of mode 0700 are in the way."""
    directory.chmod(0o755)
    (directory / "open" / "data").mkdir(parents=True)
    (directory / "closed" / "data").mkdir(parents=True)
    (directory / "closed").chmod(0o700)
    uid = account_uid(account)
    assert uid not in {entry.pw_uid for entry in pwd.getpwall()}
    needed = (Path("/bin"),)
    for name, capability, confined_to in (("open", "", ()), ("closed", "2", needed)):
        with closing(Directory.at(directory / name / "data")) as data:
            identity = identity_for(account, data, needed)
            assert identity == Identity(f"user:{uid}:{uid}:{capability}", uid, uid, confined_to)
            assert data.names() == []


async def test_a_start_that_fails_says_why(data: Path) -> None:
    """The server's own last words are in the error."""
    (data / "cluster" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(ConfigurationError, match="no_such_setting"):
        await EmbeddedPostgres(data).start()


async def _one(server: EmbeddedPostgres) -> int:
    connection = await asyncpg.connect(server.dsn)
    try:
        one: int = await connection.fetchval("SELECT 1")
        return one
    finally:
        await connection.close()
