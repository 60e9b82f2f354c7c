"""`scripts/servers`: real servers that are found again, killed, kept and wiped."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.eventually import eventually
from tests.support.processes import REPOSITORY
from tests.support.servers import short_directory

pytestmark = pytest.mark.skipif(
    not shutil.which("redis-server"), reason="redis-server is not installed"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        path.chmod(0o755)  # the server runs as a user of its own
        yield path
        for name in ("redis", "redis-ha", "postgres-ha"):
            _servers(path, "wipe", name=name)


def _servers(
    directory: Path | str, *arguments: str, name: str = "redis"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "scripts" / "servers", *arguments, name],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SERVERS_DIR": str(directory)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_server_is_found_again_and_keeps_its_address(directory: Path) -> None:
    """Up, killed, up again and down: one address, and the exit code tells how it stands."""
    assert _servers(directory, "up").returncode == 0
    assert _servers(directory, "up").returncode == 0
    address = _servers(directory, "env").stdout
    assert address.startswith("export REDIS_ADDR='127.0.0.1:")
    assert _servers(directory, "test-env").stdout == address.replace("REDIS", "TEST_REDIS")
    assert "answers" in _servers(directory, "status").stdout
    assert _servers(directory, "kill").returncode == 0
    assert _servers(directory, "status").returncode == 1
    assert _servers(directory, "env").stdout == ""
    assert _servers(directory, "up").returncode == 0
    assert _servers(directory, "env").stdout == address
    assert _servers(directory, "down").returncode == 0
    assert "stopped" in _servers(directory, "status").stdout


async def test_a_group_is_started_in_order_and_has_one_address(directory: Path) -> None:
    """A replaced primary that comes back keeps its address, and the Sentinels make it a replica."""
    started = _servers(directory, "up", name="redis-ha")
    assert [line.split()[0] for line in started.stderr.splitlines()] == MEMBERS
    address = _servers(directory, "env", name="redis-ha").stdout
    sentinels = ",".join(_address(directory, name) for name in MEMBERS[2:])
    assert address == f"export REDIS_ADDR='redis+sentinel://app:secret@{sentinels}/polyglot'\n"
    test_address = _servers(directory, "test-env", name="redis-a").stdout
    assert test_address == f"export TEST_REDIS_A_ADDR='{_address(directory, 'redis-a')}'\n"
    await _until(lambda: "num-slaves\n1\n" in _sentinel(directory, "MASTER", "polyglot"))
    assert _servers(directory, "kill", name="redis-a").returncode == 0
    new = _address(directory, "redis-b").replace(":", "\n") + "\n"
    await _until(lambda: _sentinel(directory, "GET-MASTER-ADDR-BY-NAME", "polyglot") == new)
    assert _servers(directory, "up", name="redis-a").returncode == 0
    await _until(lambda: _redis(directory, "redis-a", "ROLE").startswith("slave\n"))
    assert _servers(directory, "down", name="redis-ha").returncode == 0
    assert _servers(directory, "env", name="redis-ha").stdout == ""
    assert _servers(directory, "up", name="redis-ha").returncode == 0
    assert _servers(directory, "env", name="redis-ha").stdout == address
    assert _redis(directory, "redis-a", "ROLE").startswith("slave\n")


MEMBERS = ["redis-a", "redis-b", "redis-sentinel-a", "redis-sentinel-b", "redis-sentinel-c"]


def _address(directory: Path, name: str) -> str:
    return _servers(directory, "env", name=name).stdout.split("'")[1]


def _redis(directory: Path, name: str, *words: str) -> str:
    host, _, port = _address(directory, name).partition(":")
    command = ["redis-cli", "-h", host, "-p", port, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def _sentinel(directory: Path, *words: str) -> str:
    return _redis(directory, "redis-sentinel-c", "SENTINEL", *words)


async def _until(is_so: Callable[[], bool]) -> None:
    async def attempt() -> None:
        assert await asyncio.to_thread(is_so)

    await eventually(attempt, retried=(AssertionError, subprocess.CalledProcessError))


@pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")), reason="no PostgreSQL installed"
)
@pytest.mark.timeout(300)
def test_a_former_primary_comes_back_as_a_standby(directory: Path) -> None:
    """After a kill and after a stop; and a server on an older timeline is not followed."""
    group = "postgres-ha"
    assert _servers(directory, "up", name=group).returncode == 0
    places = [urlsplit(_address(directory, name)).netloc for name in POSTGRES]
    both = f"{places[0]},{places[1].rpartition('@')[2]}"
    assert urlsplit(_address(directory, group)).netloc == both
    assert [_is_standby(directory, name) for name in POSTGRES] == [False, True]
    for lost, promoted, end in (("postgres-a", "postgres-b", "kill"), (*POSTGRES[::-1], "down")):
        assert _servers(directory, end, name=lost).returncode == 0
        assert _servers(directory, "run", promoted, *PROMOTE, name="cluster").returncode == 0
        assert _servers(directory, "up", name=lost).returncode == 0
        assert (_is_standby(directory, lost), _is_standby(directory, promoted)) == (True, False)
    assert _servers(directory, "down", name=group).returncode == 0
    assert _servers(directory, "up", name=group).returncode == 0
    assert [_is_standby(directory, name) for name in POSTGRES] == [False, True]
    assert _servers(directory, "kill", name="postgres-a").returncode == 0
    assert _servers(directory, "run", "postgres-b", *PROMOTE, name="cluster").returncode == 0
    assert _servers(directory, "down", name="postgres-b").returncode == 0
    assert _servers(directory, "up", name="postgres-a").returncode == 0
    refused = _servers(directory, "up", name="postgres-b")
    assert refused.returncode == 1
    assert "postgres-a is a former primary" in refused.stderr


POSTGRES = ["postgres-a", "postgres-b"]
PROMOTE = ("pg_ctl", "promote", "-D")
"""The directory follows: the last argument."""


def _is_standby(directory: Path, name: str) -> bool:
    command = ["psql", "-XAtqc", "SELECT pg_is_in_recovery()", _address(directory, name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout == "t\n"


def test_no_directory_is_not_the_one_where_one_happens_to_be(directory: Path) -> None:
    """`SERVERS_DIR=` in a script whose variable is empty would put the data into a checkout."""
    assert _servers(directory, "data").stdout == f"{directory}/redis/data\n"
    assert _servers("", "data").stdout != "/redis/data\n"


def test_an_unknown_name_is_wrong_usage(directory: Path) -> None:
    """The usage is printed, and nothing is started."""
    done = _servers(directory, "up", "mysql")
    assert done.returncode == 2
    assert "scripts/servers up" in done.stderr
