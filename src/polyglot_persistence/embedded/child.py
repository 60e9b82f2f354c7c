"""One child process: started bound to this one's life, and a lock that lasts as long as it does.

The child inherits a lock (flock(2)) on a file beside its data, and so do all the processes that it
forks. The lock is therefore free exactly when the last of them is gone, whatever was killed in
which order; this does not depend on a process id. The id in the file only names the process to
stop first; a child that is another user's inherits the file open for reading, and cannot change it.

Invariant: a child is started from the thread that runs the event loop: on Linux it gets its stop
signal when that very thread ends (prctl(2), PR_SET_PDEATHSIG).
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import IO

from polyglot_persistence import telemetry
from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.identity import LAUNCH, SAME, Identity
from polyglot_persistence.errors import ConfigurationError
from polyglot_persistence.processes.supervision import exit_text

LOG_BYTES_MAX = 4 * 1024 * 1024
"""A log larger than this at a start is set aside as `.1`, in the place of the one before."""

LOG_TAIL_LINES = 5
LOG_TAIL_BYTES = 4096

POLL_SECONDS = 0.02
"""Between two looks at what is expected within moments."""

KILLED_GONE_SECONDS = 10.0
"""Maximum time for a killed process to end; it may be waiting for a disk."""

FOLLOWERS_GONE_SECONDS = 1.0
"""How long processes may outlive the one that forked them before they are killed."""

_PID_BYTES = 20
_PROCESSES = Path("/proc")
_log = telemetry.logger("up")


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]],
    timeout_seconds: float,
    poll_seconds: float = POLL_SECONDS,
) -> bool:
    """Return whether the condition came true in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while True:
        outcome = condition()
        if outcome if isinstance(outcome, bool) else await outcome:
            return True
        if loop.time() > deadline:
            return False
        await asyncio.sleep(poll_seconds)


@dataclass
class Child:
    """One program, run at most once at a time.

    `stops` are the signals that end it, each with the seconds that it is given before the next one
    and at last SIGKILL follows. Lock and log are files of `directory`, which may be opened later
    than this is made; without `log_name` the program writes to this process's stderr.
    """

    name: str
    _: KW_ONLY
    directory: Callable[[], Directory]
    lock_name: str
    stops: Sequence[tuple[signal.Signals, float]]
    log_name: str | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def running(self) -> bool:
        """Whether the program has been started and has not ended."""
        return self.process is not None and self.process.poll() is None

    async def start(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        identity: Identity = SAME,
        owns: Sequence[Path] = (),
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        inherited: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start the program, after the end of any that an earlier owner has left behind.

        It inherits the descriptors `inherited`, under the same numbers; `owns` is all that it
        writes.

        Raises:
            ConfigurationError: if what was left behind does not end, or the program cannot start.
        """
        lock = await self._take_lock(os.O_RDWR if identity == SAME else os.O_RDONLY)
        try:
            with self._open_log() as log:
                self.process = subprocess.Popen(  # noqa: ASYNC220 -- see the module's invariant
                    [
                        *(sys.executable, "-I", "-S", LAUNCH),
                        *(str(os.getpid()), str(int(self.stops[0][0]))),
                        *(*identity.arguments(owns), *command),
                    ],
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    env=dict(environment),
                    umask=0o077,  # orders are private
                    start_new_session=True,  # so that a Ctrl-C reaches the owner alone
                    pass_fds=[lock, *inherited],
                )
            self._record(self.process.pid)
        except OSError as error:
            raise ConfigurationError(f"cannot start {self.name}: {error}") from error
        finally:
            os.close(lock)  # from here on only the child and its children hold it
        return self.process

    async def reap(self) -> None:
        """Return when nothing that an earlier owner has left behind runs any more.

        Raises:
            ConfigurationError: if it does not end, not even killed.
        """
        os.close(await self._take_lock(os.O_RDWR))

    async def run(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        timeout_seconds: float,
        identity: Identity = SAME,
        owns: Sequence[Path] = (),
        stdin: IO[bytes] | int = subprocess.DEVNULL,
    ) -> None:
        """Run the program to its end.

        Raises:
            ConfigurationError: with the end of its log, if it fails or is not done in time.
        """
        process = await self.start(command, environment, identity=identity, owns=owns, stdin=stdin)
        try:
            if not await wait_until(lambda: process.poll() is not None, timeout_seconds):
                raise self.failure(f"was not done after {timeout_seconds:.0f} s")
        finally:
            await self.stop()
        if process.returncode:
            raise self.failure(exit_text(process.returncode))

    async def stop(self) -> None:
        """End the program and wait for its end; without effect if it is not running."""
        if self.process is None:
            return
        for number, seconds in self.stops:
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            await wait_until(lambda: not self.running, seconds)
        await self.kill()

    async def kill(self) -> None:
        """Kill the program and wait for its end; without effect if it is not running."""
        if self.process is not None and self.process.poll() is None:
            _log.warning("child_killed", child=self.name, pid=self.process.pid)
            self.process.kill()
            await wait_until(lambda: not self.running, KILLED_GONE_SECONDS)

    def failure(self, what: str) -> ConfigurationError:
        """Return an error that says what happened, with the end of the program's log."""
        if self.log_name is None:
            return ConfigurationError(f"{self.name} {what}")
        directory = self.directory()
        with os.fdopen(directory.open(self.log_name, os.O_RDONLY), "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
            tail = log.read(LOG_TAIL_BYTES).decode(errors="replace").splitlines()
        lines = "; ".join(line.strip() for line in tail[-LOG_TAIL_LINES:] if line.strip())
        log_path = directory.path / self.log_name
        return ConfigurationError(f"{self.name} {what}: {lines} (log: {log_path})")

    def exit_text(self) -> str:
        """Return in words how the program ended."""
        code = self.process.poll() if self.process else None
        return "has not ended" if code is None else exit_text(code)

    def _open_log(self) -> IO[bytes]:
        if self.log_name is None:
            return os.fdopen(os.dup(2), "wb")
        directory = self.directory()
        found = directory.stat(self.log_name)
        if found is not None and found.st_size > LOG_BYTES_MAX:
            directory.rename(self.log_name, f"{self.log_name}.1")
        descriptor = directory.open(self.log_name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return os.fdopen(descriptor, "ab")

    def _record(self, pid: int) -> None:
        with os.fdopen(self.directory().open(self.lock_name, os.O_WRONLY), "wb") as lock:
            lock.write(f"{pid:<{_PID_BYTES}}\n".encode())

    async def _take_lock(self, flags: int) -> int:
        lock = self.directory().open(self.lock_name, flags | os.O_CREAT)
        try:
            if not try_lock(lock):
                await self._end_left_behind(lock)
        except BaseException:
            os.close(lock)
            raise
        return lock

    async def _end_left_behind(self, lock: int) -> None:
        """Return with the lock, when all that an earlier owner started has ended."""
        _log.warning("child_left_behind", child=self.name, pids=self._holders())
        for number, seconds in self.stops:
            leader = self._leader()
            if leader is None:
                break
            _signal(leader, number)
            await wait_until(lambda: self._leader() is None, seconds)
        # Without their leader, what it forked ends by itself or has nothing left to do.
        if await wait_until(lambda: try_lock(lock), FOLLOWERS_GONE_SECONDS):
            return
        for pid in self._holders():
            _signal(pid, signal.SIGKILL)
        if not await wait_until(lambda: try_lock(lock), KILLED_GONE_SECONDS):
            raise ConfigurationError(
                f"{self.name} of an earlier run (pid {self._recorded_pid()}) does not end; "
                "end it and start again"
            )

    def _leader(self) -> int | None:
        """Return the process that was started, if it still holds the lock."""
        recorded = self._recorded_pid()
        return recorded if recorded and recorded in self._holders([recorded]) else None

    def _holders(self, pids: Sequence[int] | None = None) -> list[int]:
        """Return those of the processes that hold the lock file open, as far as the system shows.

        Of all processes, if none are named. Never this process itself.
        """
        lock = self.directory().stat(self.lock_name)
        if pids is None:
            if not _PROCESSES.exists():
                return [leader] if (leader := self._leader()) else []
            pids = [int(entry.name) for entry in _PROCESSES.iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if pid != os.getpid() and lock and _holds(pid, lock)]

    def _recorded_pid(self) -> int | None:
        text = (self.directory().read(self.lock_name, _PID_BYTES) or b"").strip()
        return int(text) if text.isdigit() else None


def try_lock(descriptor: int) -> bool:
    """Return whether the open file is locked by this process now; it never waits."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


def _holds(pid: int, wanted: os.stat_result) -> bool:
    """Whether the process has the file open; where that cannot be read, whether it is alive."""
    try:
        if not _PROCESSES.exists():
            os.kill(pid, 0)
            return True
        for link in (_PROCESSES / str(pid) / "fd").iterdir():
            found = link.stat()
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:
        pass  # it has ended, or it is another user's and so none of ours
    return False
