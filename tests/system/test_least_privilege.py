"""As root, `polyglot up` follows nobody, and none of its processes could do harm as root."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.identity import (
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    LAUNCH,
    Account,
    Identity,
    account_uid,
    identity_for,
)
from polyglot_persistence.embedded.programs import SEARCH, needed
from tests.support.keys import ENVIRONMENT
from tests.support.other_users import NEEDS_ROOT
from tests.support.processes import (
    Up,
    alive,
    descendants,
    eventually,
    free_port,
    is_free,
    polyglot_up,
    started,
    up_command,
)
from tests.support.servers import copy_directory, short_directory

pytestmark = [pytest.mark.timeout(240), NEEDS_ROOT]

NOBODY = 65_534
SERVERS, PROGRAMS = account_uid(Account.SERVERS), account_uid(Account.PROGRAMS)

READY_SECONDS = 60.0
STARTS_MAX = 40
"""A start may refuse one planted name after another."""

SECRET = "what only root may know\n"


@pytest.fixture(scope="module")
def used() -> Iterator[Path]:
    """A directory whose `polyglot up` had an order and was stopped."""
    with short_directory() as path:
        path.chmod(0o755)
        command = up_command(path / "data", port := free_port())
        environment = {**os.environ, **ENVIRONMENT}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as up:
            assert up.stdout is not None
            assert up.stdout.readline().startswith(b"ready: ")
            body = '{"product_name":"Milk","amount":1.25}'
            curl = ["curl", "-sf", f"http://127.0.0.1:{port}/api/orders", "-d", body]
            subprocess.run([*curl, "-H", "Content-Type: application/json"], check=True, timeout=30)
            up.send_signal(signal.SIGTERM)
        yield path / "data"


@pytest.fixture
def data(used: Path, directory: Path) -> Path:
    """A copy of it."""
    copy_directory(used, directory / "data")
    return directory / "data"


# --- what is planted


def as_this_version_left_it(_data: Path) -> None:
    """Change nothing: servers, API and worker own what they were given."""


def as_an_earlier_version_left_it(data: Path) -> None:
    """Give `nobody` PostgreSQL's directory with all in it, as the version f722066 did."""
    shutil.chown(data / "postgres", NOBODY, NOBODY)
    (data / "postgres").chmod(0o700)
    for path in (data / "postgres").rglob("*"):
        os.chown(path, NOBODY, NOBODY)
    (data / "valkey" / "appendonlydir").unlink()
    (data / "valkey" / "data" / "appendonlydir").rename(data / "valkey" / "appendonlydir")
    (data / "valkey" / "data").rmdir()
    for path in (data / "valkey" / "appendonlydir", *(data / "valkey").rglob("*")):
        os.chown(path, 0, 0)
    (data / "valkey").chmod(0o700)
    for path in (data / SEARCH, *(data / SEARCH).rglob("*")):
        os.chown(path, 0, 0)


def symbolic_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)  # as anybody may where fs.protected_hardlinks is 0


def pipe(path: Path, _victim: Path) -> None:
    os.mkfifo(path)


NAMES = [
    *("owner.lock", "server.lock", "server.log", "server.log.1", "server.log.new"),
    *("password", "password.new", "password.lent", "password.lent.new"),
    *("run", "run.new", "cluster.new", "data", "appendonlydir.new", ".probe"),
    *("postmaster.pid", "PG_VERSION", "pg_hba.conf", "valkey.sock", ".s.PGSQL.5432"),
    *("api.lock", "worker.lock", "migrate.lock", "stores.env", "stores.env.new"),
    *("operator.key", "operator.key.new", "writing", "lock", "current", "current.new"),
]
"""All that this process, the one of f722066, or a command of an operator opens or makes."""

NEEDED = {"PG_VERSION", "pg_hba.conf", "current", "data"}
"""Names without which a server does not start, so that nothing after them would be tried."""


DEEP = {"global", "pg_wal"}
DEEP_NAMES = ["server.log", "postmaster.pid"]
"""In the cluster's directories nothing is opened, and all is given to somebody else."""


class Victims:
    """Files outside, one for each name that is planted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o755)
        self._before: dict[Path, tuple[int, ...]] = {}

    def one(self, name: str) -> Path:
        path = self._directory / name.replace("/", "_")
        path.write_text(SECRET)
        path.chmod(0o600)
        self._before[path] = self._state(path)
        return path

    def harmed(self) -> list[str]:
        return [
            path.name
            for path, before in self._before.items()
            if not path.exists() or self._state(path) != before or path.read_text() != SECRET
        ]

    def made(self) -> list[str]:
        return sorted({path.name for path in self._directory.iterdir()} - self._names())

    def _names(self) -> set[str]:
        return {path.name for path in self._before}

    @staticmethod
    def _state(path: Path) -> tuple[int, ...]:
        found = path.stat()
        return (found.st_mode, found.st_uid, found.st_gid, found.st_size)


def plant_everywhere(
    data: Path, plant: Callable[[Path, Path], None], victims: Victims, *, names: list[str]
) -> list[Path]:
    """Put it at every name in every directory below that is not root's; return where it is."""
    planted = []
    directories = [path for path in (data, *data.rglob("*")) if path.is_dir()]
    for path in directories:
        is_deep = path.is_relative_to(data / "postgres" / "cluster") and path.name != "cluster"
        if path.stat().st_uid == 0 or (is_deep and path.name not in DEEP):
            continue
        for name in DEEP_NAMES if is_deep else names:
            target = path / name
            if target.is_dir() and not target.is_symlink():
                continue
            target.unlink(missing_ok=True)
            plant(target, victims.one(str(target.relative_to(data))))
            if plant is not hard_link:
                os.chown(target, path.stat().st_uid, path.stat().st_gid, follow_symlinks=False)
            planted.append(target)
    return planted


def removed(planted: list[Path], sentence: str) -> bool:
    """Remove what the sentence names, as it asks for; return whether there was anything."""
    named = [path for path in planted if str(path) in sentence and os.path.lexists(path)]
    for path in named:
        path.unlink()
    return named != []


def owners_below(directory: Path) -> set[int]:
    """Return who owns the files and directories; whose a link or a pipe is does not matter."""
    kinds = (stat.S_IFREG, stat.S_IFDIR)
    found = [path.lstat() for path in directory.rglob("*")]
    return {one.st_uid for one in found if stat.S_IFMT(one.st_mode) in kinds}


async def started_or_refused(data: Path) -> tuple[bool, str]:
    """Start it once; return whether it was ready, and its log."""
    with started(up_command(data, free_port()), environment=ENVIRONMENT) as process:
        await eventually(
            lambda: process.code is not None or "ready: " in process.output(), READY_SECONDS
        )
        if process.code is None:
            process.send(signal.SIGTERM)
            assert await process.ended() == 0
            return True, process.log()
        return False, process.log()


@pytest.mark.parametrize("plant", [symbolic_link, hard_link, pipe])
@pytest.mark.parametrize("left", [as_this_version_left_it, as_an_earlier_version_left_it])
async def test_what_is_planted_is_neither_followed_nor_waited_for(
    left: Callable[[Path], None], plant: Callable[[Path, Path], None], data: Path, directory: Path
) -> None:
    """Nothing outside changes; the start works, or one line names what is in its way."""
    left(data)
    victims = Victims(directory / "outside")
    names = [name for name in NAMES if name not in NEEDED]
    planted = plant_everywhere(data, plant, victims, names=names)
    assert len(planted) > len(names)
    for _ in range(STARTS_MAX):
        is_ready, log = await started_or_refused(data)
        assert victims.harmed() == []
        assert victims.made() == []
        assert SECRET.strip() not in log
        if is_ready:
            break
        assert "Traceback" not in log
        sentence = log.splitlines()[-1]
        assert sentence.startswith("polyglot: ")
        assert removed(planted, sentence), sentence
    else:
        pytest.fail("it never starts")
    assert owners_below(data) == {0, SERVERS, PROGRAMS}


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        *(("PG_VERSION", plant) for plant in (symbolic_link, hard_link, pipe)),
        *(("pg_hba.conf", plant) for plant in (symbolic_link, hard_link)),
    ],
)
async def test_a_needed_file_that_is_replaced_ends_the_start_with_a_sentence(
    name: str, plant: Callable[[Path, Path], None], data: Path, directory: Path
) -> None:
    """And what it leads to is neither shown nor changed."""
    victims = Victims(directory / "outside")
    target = data / "postgres" / "cluster" / name
    target.unlink()
    plant(target, victims.one(name))
    is_ready, log = await started_or_refused(data)
    assert not is_ready
    assert victims.harmed() == []
    assert SECRET.strip() not in log
    assert name in log.splitlines()[-1]
    assert "Traceback" not in log


async def test_a_directory_of_another_user_is_refused(directory: Path) -> None:
    """Root runs nothing that somebody else may replace; one line says what to do."""
    for name, owner, mode, remedy in (
        ("foreign", NOBODY, 0o755, "chown -R 0:0"),
        ("open", 0, 0o777, "chmod go-w"),
        ("group's", 0, 0o775, "chmod go-w"),
    ):
        (directory / name).mkdir()
        (directory / name).chmod(mode)
        os.chown(directory / name, owner, owner)
        is_ready, log = await started_or_refused(directory / name)
        assert not is_ready
        assert remedy in log
        assert len(log.splitlines()) == 1
        assert list((directory / name).iterdir()) == []


# --- as whom they run


@pytest.fixture
async def up(data: Path) -> AsyncIterator[Up]:
    async with polyglot_up(data, environment={"API_KEYS": ""}) as up:
        yield up


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def environment_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


async def test_processes_are_users_of_their_own_without_rights(up: Up) -> None:
    """Each of them, whoever forked it; at most they pass by permissions, to read."""
    programs = {up.pid_of("api"), up.pid_of("worker")}
    servers = set(descendants(up.process.pid)) - programs
    assert len(servers) > 5
    for uid, pids in ((PROGRAMS, programs), (SERVERS, servers)):
        for pid in filter(alive, pids):
            status = status_of(pid)
            assert status["Uid"].split() == [str(uid)] * 4
            assert status["Gid"].split() == [str(uid)] * 4
            assert status["Groups"] == ""
            assert status["NoNewPrivs"] == "1"
            may_search = 1 << 2  # CAP_DAC_READ_SEARCH, for an interpreter in a private home
            assert int(status["CapEff"], 16) & ~may_search == 0
    assert status_of(up.process.pid)["Uid"].split() == ["0"] * 4


DEEDS = """
import os, signal, socket, sys
from pathlib import Path
data, parent, store = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
deeds = {
    "read the operator's key": lambda: (data / "operator.key").read_text(),
    "read addresses": lambda: (data / "stores.env").read_text(),
    "read the superuser's password": lambda: (data / "postgres" / "password").read_text(),
    "read the cluster": lambda: (data / "postgres" / "cluster" / "PG_VERSION").read_text(),
    "list the cache": lambda: os.listdir(data / "valkey" / "data"),
    "read the shadow": lambda: Path("/etc/shadow").read_text(),
    "read a disk": lambda: open(next(Path("/dev").glob("[svx]*d[a-z]"), "/dev/loop0"), "rb"),
    "make a file": lambda: (data / "mine").write_text(""),
    "make one of PostgreSQL's": lambda: (data / "postgres" / "mine").write_text(""),
    "make a socket": lambda: socket.socket(socket.AF_UNIX).bind(str(data / "postgres/run/mine")),
    "remove a log": lambda: (data / "postgres" / "server.log").unlink(),
    "append to a log": lambda: (data / "valkey" / "server.log").open("a"),
    "change a lock": lambda: (data / "api.lock").open("r+"),
    "link": lambda: (data / "owner.lock.2").symlink_to("/etc/passwd"),
    "signal the parent": lambda: os.kill(parent, signal.SIGWINCH),
    "signal a server": lambda: os.kill(store, signal.SIGWINCH),
    "read the parent's memory": lambda: open(f"/proc/{parent}/mem", "rb"),
    "read the parent's environment": lambda: open(f"/proc/{parent}/environ", "rb").read(),
    "read a server's memory": lambda: open(f"/proc/{store}/mem", "rb"),
    "become root": lambda: os.setuid(0),
    "write the index": lambda: (data / "search" / "mine").write_text(""),
}
for name, deed in deeds.items():
    try:
        deed()
    except OSError:
        pass
    else:
        print(name)
"""


@pytest.mark.parametrize("capability", [None, CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE])
async def test_who_takes_over_the_api_gets_no_further(
    capability: int | None, up: Up, data: Path
) -> None:
    """Not to the key of operators, other users' files, or the processes beside it.

    Nor with a capability to pass by permissions, as in a private home, or in a container there.
    """
    with closing(Directory.at(data)) as files:
        identity = identity_for(Account.PROGRAMS, files, needed())
    if capability is not None:
        argument = f"user:{PROGRAMS}:{PROGRAMS}:{capability}"
        identity = Identity(argument, PROGRAMS, PROGRAMS, tuple(needed()))
    deeds = [sys.executable, "-c", DEEDS, data, up.process.pid, up.pid_of("postgres")]
    arguments = [*identity.arguments([data / SEARCH]), *deeds]
    command = [sys.executable, "-I", "-S", LAUNCH, os.getpid(), 0, *arguments]
    with started(list(map(str, command))) as attacker:
        assert await attacker.ended() == 0, attacker.log()
        assert attacker.output().splitlines() == ["write the index"]


async def test_the_role_of_api_and_worker_is_a_plain_one(up: Up) -> None:
    """It is no superuser, makes and drops nothing, and changes no order."""
    for program in ("api", "worker"):
        dsn = environment_of(up.pid_of(program))["POSTGRES_DSN"]
        assert urlsplit(dsn).username == "polyglot_worker"
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            role = await connection.fetchrow(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
                " FROM pg_roles WHERE rolname = current_user"
            )
            assert role is not None
            assert not any(role.values())
            for statement in (
                "DROP TABLE orders",
                "ALTER TABLE orders ADD COLUMN mine int",
                "UPDATE orders SET amount = 0",
                "DELETE FROM orders",
                "TRUNCATE orders",
                "CREATE TABLE mine (id int)",
                "CREATE ROLE mine",
                "SET ROLE polyglot_owner",
                "SET ROLE polyglot",
                "COPY orders TO '/tmp/orders'",
                "SELECT pg_read_file('PG_VERSION')",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        finally:
            await connection.close(timeout=10)


# --- what root does beside it


def command(data: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "polyglot_persistence", "--stores-of", str(data), *arguments]


async def test_commands_of_root_do_not_work_as_root(up: Up, data: Path, directory: Path) -> None:
    """They write the index as its owner, so a link there leads root nowhere."""
    await up.persisted(await up.order())
    for arguments in (
        ("doctor",),
        ("audit",),
        ("sales", "rebuild"),
        ("search", "rebuild"),
        ("dead-letters", "list"),
        ("migrate",),
    ):
        with started(command(data, *arguments)) as process:
            assert await process.ended() == 0, process.log()
    assert {path.stat().st_uid for path in (data / SEARCH).rglob("*")} == {PROGRAMS}
    victims = Victims(directory / "outside")
    for name in ("lock", "building.new", "building"):
        (data / SEARCH / name).unlink(missing_ok=True)
        (data / SEARCH / name).symlink_to(victims.one(name))
    with started(command(data, "search", "rebuild")) as process:
        await process.ended()
    assert victims.harmed() == []


async def another_runs(up: Up, program: str, before: int) -> None:
    """Wait until the program runs again, as another process."""

    def is_another() -> bool:
        try:
            now = up.pid_of(program)
            command = Path(f"/proc/{now}/cmdline").read_text()
        except (LookupError, OSError):
            return False
        return now != before and LAUNCH.name not in command

    await eventually(is_another, what=f"a restart of {program}")


async def test_a_privileged_port_and_a_restart(data: Path) -> None:
    """The API alone may listen below 1024; started again, it has the same rights."""
    port = next(port for port in range(600, 1000) if is_free(port))
    async with polyglot_up(data, port=port) as up:
        for victim in ("api", "worker"):
            before = up.pid_of(victim)
            os.kill(before, signal.SIGKILL)
            await another_runs(up, victim, before)
            status = status_of(up.pid_of(victim))
            assert status["Uid"].split() == [str(PROGRAMS)] * 4
            may_search, may_bind = 1 << 2, 1 << 10
            assert int(status["CapEff"], 16) & ~may_search == may_bind
