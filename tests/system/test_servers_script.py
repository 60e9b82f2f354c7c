"""`scripts/servers`: real servers that are found again, killed, kept and wiped."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        _servers(path, "wipe")


def _servers(directory: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "scripts" / "servers", *arguments, "redis"],
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


def test_no_directory_is_not_the_one_where_one_happens_to_be(directory: Path) -> None:
    """`SERVERS_DIR=` in a script whose variable is empty would put the data into a checkout."""
    assert _servers(directory, "data").stdout == f"{directory}/redis/data\n"
    assert _servers("", "data").stdout != "/redis/data\n"


def test_an_unknown_name_is_wrong_usage(directory: Path) -> None:
    """The usage is printed, and nothing is started."""
    done = _servers(directory, "up", "mysql")
    assert done.returncode == 2
    assert "scripts/servers up" in done.stderr
