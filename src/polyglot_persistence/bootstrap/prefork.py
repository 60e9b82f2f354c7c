"""Several API processes behind one port: forked from this one, which starts again what dies.

Each has a listening socket of its own, made before the fork; the kernel spreads connections over
them (SO_REUSEPORT, socket(7)). They stay open here, so that whoever connects to a process that has
died waits for its successor and is not refused.

```
  start   one fork a process        keep   who ends unasked is forked again, with growing pauses
  stop    close the sockets here ── SIGTERM to each ── wait ── SIGKILL to whoever is late
```

Invariant: until it forks, this process has no thread, no event loop, no connection, and has made no
id: nothing is copied whose state two processes must not share.
"""

import ctypes
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from polyglot_persistence.bootstrap.doors import Doors, close_doors
from polyglot_persistence.telemetry import logger

_log = logger("api")

RESTART_PAUSE_SECONDS_MIN = 0.1
RESTART_PAUSE_SECONDS_MAX = 10.0
RESTART_FORGIVEN_SECONDS = 30.0
"""Who ran this long starts again without a growing pause."""

STOP_MARGIN_SECONDS = 5.0
"""What a process is given beyond its own deadline before it is killed."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_HEARD = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def run_several(
    doors: Sequence[Doors], serve: Callable[[Doors], int], *, stop_seconds: float
) -> int:
    """Run `serve` in one process for each of the doors until SIGTERM or SIGINT; return 0.

    `stop_seconds` is how long `serve` itself may take to stop. Whoever had to be killed makes it 1.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # they are waited for, one after the other
    return _Family(doors, serve).run(stop_seconds)


class _Member:
    """One of the processes, its successors included."""

    def __init__(self, doors: Doors) -> None:
        self.doors = doors
        self.pid = 0
        self.started = 0.0
        self.pause_seconds = RESTART_PAUSE_SECONDS_MIN
        self.due = 0.0
        """When it is to be started (again), on the monotonic clock; only while it does not run."""


class _Family:
    def __init__(self, doors: Sequence[Doors], serve: Callable[[Doors], int]) -> None:
        self._members = [_Member(one) for one in doors]
        self._serve = serve

    def run(self, stop_seconds: float) -> int:
        while True:
            for member in self._members:
                if not member.pid and member.due <= time.monotonic():
                    self._start(member)
            pauses = [one.due - time.monotonic() for one in self._members if not one.pid]
            heard = _wait(min(pauses, default=None))
            if heard is signal.SIGCHLD:
                for member, how in self._ended():
                    self._will_be_started_again(member, how)
            elif heard is not None:
                return self._stop(stop_seconds)

    def _start(self, member: _Member) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        member.started = time.monotonic()
        member.pid = os.fork()
        if not member.pid:
            self._be(member, parent)

    def _be(self, member: _Member, parent: int) -> NoReturn:
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
            _end_with(parent)
            close_doors(one.doors for one in self._members if one is not member)
            code = self._serve(member.doors)
        except BaseException:  # noqa: BLE001  nothing of the parent's stack may go on in here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _ended(self) -> Sequence[tuple[_Member, str]]:
        """Return who has ended since the last look, and how."""
        ended = []
        for member in self._members:
            if member.pid:
                pid, status = os.waitpid(member.pid, os.WNOHANG)
                if pid:
                    member.pid = 0
                    ended.append((member, _how(status)))
        return ended

    def _will_be_started_again(self, member: _Member, how: str) -> None:
        now = time.monotonic()
        if now - member.started > RESTART_FORGIVEN_SECONDS:
            member.pause_seconds = RESTART_PAUSE_SECONDS_MIN
        pause_seconds = member.pause_seconds * random.uniform(0.5, 1.0)  # noqa: S311  # jitter
        member.due = now + pause_seconds
        member.pause_seconds = min(2 * member.pause_seconds, RESTART_PAUSE_SECONDS_MAX)
        _log.error("process_ended_unasked", process=member.doors.number, how=how)

    def _stop(self, stop_seconds: float) -> int:
        close_doors(one.doors for one in self._members)
        running = [one for one in self._members if one.pid]
        for member in running:
            os.kill(member.pid, signal.SIGTERM)
        deadline = time.monotonic() + stop_seconds + STOP_MARGIN_SECONDS
        while any(one.pid for one in running) and (left := deadline - time.monotonic()) > 0:
            _wait(left)
            self._ended()
        late = [one for one in running if one.pid]
        for member in late:
            _log.error("process_killed", process=member.doors.number)
            os.kill(member.pid, signal.SIGKILL)
            os.waitpid(member.pid, 0)
        return 1 if late else 0


def _wait(seconds: float | None) -> signal.Signals | None:
    """Return the next of the signals, or None if it does not come in time."""
    if seconds is None:
        return signal.Signals(signal.sigwait(_HEARD))
    found = signal.sigtimedwait(_HEARD, max(seconds, 0))
    return None if found is None else signal.Signals(found.si_signo)


def _end_with(parent: int) -> None:
    """Ask the kernel for a SIGTERM when the parent dies, whatever kills it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel was told to watch it


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"code {code}" if code >= 0 else signal.Signals(-code).name
