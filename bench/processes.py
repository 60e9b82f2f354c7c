"""The processes that are measured: started, waited for, their memory sampled, stopped.

Invariant: only what was started here is ever stopped, and nothing of it outlives this process.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

START_SECONDS = 60.0
STOP_SECONDS = 45.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_parent() -> None:
    """Ask the kernel to stop this process when the one that started it dies (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run_to_end(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, errors: int | IO[Any]
) -> tuple[int, bytes]:
    """Run a program, and return its exit code and what it wrote; `errors` is its stderr.

    Cancelled, it asks the program to stop, and kills it if it does not.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        preexec_fn=end_with_parent,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        await _end(process)
        raise
    assert process.returncode is not None
    return process.returncode, output


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop and wait; kill it if it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


class StartError(Exception):
    """A process did not come up, or did not stay."""


class Process:
    """One program with its log, and what it forks.

    `memory_mb` are samples of the resident set, of the largest of its processes.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path | None
    ) -> None:
        self.name = name
        self.memory_mb: list[float] = []
        self._command = command
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, more: Mapping[str, str] | None = None) -> None:
        """Start it, with `more` settings this once; see `answers` for when it serves."""
        with self._log.open("ab") if self._log else contextlib.nullcontext() as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**self._environment, **(more or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log or asyncio.subprocess.DEVNULL,
                stderr=log or asyncio.subprocess.DEVNULL,
                preexec_fn=end_with_parent,
            )

    async def answers(self, port: int) -> None:
        """Return once somebody listens on the port.

        Raises:
            StartError: it ended instead, or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            if not self.running or time.monotonic() > deadline:
                raise StartError(f"{self.name} did not start; see {self._log}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return

    async def stop(self) -> None:
        """Ask it to stop and wait; kill it if it does not."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used; a busy machine changes it little."""
        ticks = 0
        for pid in self._family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def sample_memory(self) -> None:
        """Take one sample of the resident set, if it runs."""
        with contextlib.suppress(OSError, StopIteration):
            if family := self._family():
                self.memory_mb.append(max(map(_resident_mb, family)))

    def _family(self) -> list[int]:
        """Return the process and its children."""
        if self._process is None:
            return []
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
