"""Processes under test: started from the command line, watched, signalled, and never left behind.

Invariant: only processes started here are signalled, by their id or their own group.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

from tests.support.api import Api
from tests.support.eventually import WAIT_SECONDS, eventually_true
from tests.support.keys import ENVIRONMENT

REPOSITORY = Path(__file__).parents[2]
PRODUCT_PYTHON = os.environ.get("PRODUCT_PYTHON", sys.executable)
"""The interpreter that runs the deployments: that of another checkout runs another version."""
eventually = eventually_true
PORTS = range(20000, 32000)
PORTS_OF_ONE = 750
"""Ports of each of the processes that run tests side by side, up to sixteen."""

_given_ports: set[int] = set()


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now, and that no other test will get.

    It lies below those that the kernel gives to outgoing connections, so that it can be listened
    on again after a restart under load. Each process of a parallel run has ports of its own, and
    gives each of them once: nothing takes it between this choice and the listening.
    """
    return free_ports(1)


def free_ports(number: int) -> int:
    """Return the first of so many ports in a row, each as from `free_port`."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = PORTS[process * PORTS_OF_ONE % len(PORTS)]
    while True:
        start = random.randrange(first, first + PORTS_OF_ONE - number)
        row = range(start, start + number)
        if _given_ports.isdisjoint(row) and all(map(is_free, row)):
            _given_ports.update(row)
            return start


def is_free(port: int) -> bool:
    """Return whether a port of the loopback can be bound now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    return _state(pid) not in ("", "Z")


def _state(pid: int) -> str:
    """Return the letter of proc(5); empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether the process handles a signal by now; before, it would be ended by it (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below this one, whatever their session (Linux)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        children = parents.get(pending.pop(), [])
        found += children
        pending += children
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that have not just ended by themselves."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def freeze(pid: int) -> list[int]:
    """Stop a process and all below it (SIGSTOP); return them, when none of them can act any more.

    Whoever was listed may end, and start another, before it is stopped: so it is looked until all
    that are there stand still.
    """
    family: list[int] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        assert time.monotonic() < deadline, f"{family} do not stand still"
        family += (new := [one for one in (pid, *descendants(pid)) if one not in family])
        send(new, signal.SIGSTOP)
        if not new and all(_state(one) in ("", "Z", "T", "t") for one in family):
            return family


class Process:
    """A started command line; what it writes is kept in two files."""

    def __init__(self, popen: subprocess.Popen[bytes], out: IO[bytes], err: IO[bytes]) -> None:
        self._popen = popen
        self._out = out
        self._err = err

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def code(self) -> int | None:
        """The exit code, if it has ended."""
        return self._popen.poll()

    def output(self) -> str:
        """Return what it has written to stdout so far."""
        return _content(self._out)

    def log(self) -> str:
        """Return what it has written to stderr so far."""
        return _content(self._err)

    def send(self, number: signal.Signals) -> None:
        """Send it alone a signal, if it still runs."""
        self._popen.send_signal(number)

    async def printed(self, text: str, timeout_seconds: float = WAIT_SECONDS) -> str:
        """Wait for a line of stdout that begins with `text`, and return it."""

        def found() -> str | None:
            lines = self.output().splitlines(keepends=True)
            return next((x for x in lines if x.startswith(text) and x.endswith("\n")), None)

        await eventually(
            lambda: found() is not None or self.code is not None,
            timeout_seconds,
            f"{text!r} on stdout; stderr: {self.log()[-2000:]}",
        )
        line = found()
        assert line is not None, f"ended with {self.code}: {self.log()[-3000:]}"
        return line.strip()

    async def ended(self, timeout_seconds: float = WAIT_SECONDS) -> int:
        """Wait for its end and return the exit code."""
        await eventually(lambda: self.code is not None, timeout_seconds, f"the end of {self.pid}")
        code = self.code
        assert code is not None
        return code

    async def killed(self) -> None:
        """Kill it with -9, and wait until it and everything below it is gone."""
        family = [self.pid, *descendants(self.pid)]
        self.send(signal.SIGKILL)
        await eventually(lambda: not any(map(alive, family)), what=f"the end of {family}")

    async def family_killed(self) -> None:
        """Kill it and everything below it with -9, all at one moment."""
        await killed_together([self])


async def killed_together(processes: Sequence[Process]) -> None:
    """Kill them and everything below them with -9, all at one moment."""
    # Stopped first, so that nobody can react to another's end.
    family = [pid for one in processes if alive(one.pid) for pid in freeze(one.pid)]
    send(family, signal.SIGKILL)
    await eventually(
        lambda: not any(map(alive, family)) and all(one.code is not None for one in processes),
        what=f"the end of {family}",
    )


@contextmanager
def started(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Process]:
    """Start a command in a session of its own; at the end it and all below it are gone."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        popen = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=out,
            stderr=err,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            yield Process(popen, out, err)
        finally:
            if popen.poll() is None:
                send(freeze(popen.pid), signal.SIGKILL)
            popen.wait(WAIT_SECONDS)
            if popen.stdin:
                popen.stdin.close()


@asynccontextmanager
async def polyglot_up(
    data_dir: Path, *, port: int | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator["Up"]:
    """Start `polyglot up` and wait until it is ready; at the end it is stopped if it still runs.

    It knows the key of tests; with `API_KEYS` empty in the environment it makes one of its own.
    """
    port = port or free_port()
    environment = {**ENVIRONMENT, **(environment or {})}
    with started(up_command(data_dir, port), environment=environment) as process:
        await process.printed("ready: ")
        yield Up(process, port)
        if process.code is None:
            process.send(signal.SIGTERM)
            await process.ended()


def up_command(data_dir: Path, port: int) -> list[str]:
    """Return the command line of `polyglot up`."""
    arguments = ("up", "--port", str(port), "--data-dir", str(data_dir))
    return [PRODUCT_PYTHON, "-m", "polyglot_persistence", *arguments]


class Up(Api):
    """A running `polyglot up`."""

    def __init__(self, process: Process, port: int) -> None:
        super().__init__(port)
        self.process = process

    def pid_of(self, word: str) -> int:
        """Return the process below whose command line holds the word (`api`, `worker`, ...)."""
        for pid in descendants(self.process.pid):
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").split()
            except OSError:
                continue
            if any(Path(os.fsdecode(argument)).name == word for argument in arguments):
                return pid
        raise LookupError(word)


def _content(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 24, 0).decode(errors="replace")
