"""Several processes behind one port: forked from this one, which starts again what dies or hangs.

Each has a listening socket of its own, made before the fork; the kernel spreads connections over
them (SO_REUSEPORT, socket(7)). They stay open here, so that a client that connects to a process
that has died waits for its successor and is not refused.

```
  start   one fork a process        keep   one that ends or hangs is forked again, see `supervision`
  stop    close the sockets here ── SIGTERM to each ── wait ── SIGKILL to those that are late
```

Invariant: until it forks, this process has no thread, no event loop, no connection, and has made no
id: nothing is copied whose state two processes must not share.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Generic, NoReturn, Protocol, TypeVar

from polyglot_persistence.processes.heartbeat import BEAT, BEAT_SECONDS, Heartbeats, Parent
from polyglot_persistence.processes.supervision import LOOK_SECONDS, Supervision, exit_text
from polyglot_persistence.telemetry import logger

_log = logger("api")

STOP_MARGIN_SECONDS = 5.0
"""What a process is given beyond its own deadline before it is killed."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_AWAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Doors(Protocol):
    """What one process listens on."""

    @property
    def number(self) -> int:
        """Which of the processes it is, from 1 on."""

    def close(self) -> None:
        """Close it, in this process."""


_Doors = TypeVar("_Doors", bound=Doors)


def run_several(
    doors: Sequence[_Doors],
    serve: Callable[[_Doors, Parent], int],
    *,
    parent: Parent,
    stop_seconds: float,
    look_seconds: float = LOOK_SECONDS,
) -> int:
    """Run `serve` in one process for each of the doors until SIGTERM or SIGINT; return 0.

    `serve` beats to the parent that it is given, as this process does to its own. `stop_seconds` is
    how long `serve` itself may take to stop; if one had to be killed, return 1.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)  # they are waited for, one after the other
    return _Family(doors, serve, parent, look_seconds).run(stop_seconds)


class _Member(Generic[_Doors]):
    """One of the processes, its successors included."""

    def __init__(self, doors: _Doors) -> None:
        self.doors = doors
        self.pid = 0
        self.heartbeats = Heartbeats()
        self.supervision = Supervision()
        self.due = 0.0
        """When it is to be started (again), on the monotonic clock; only while it does not run."""


class _Family(Generic[_Doors]):
    def __init__(
        self,
        doors: Sequence[_Doors],
        serve: Callable[[_Doors, Parent], int],
        parent: Parent,
        look_seconds: float,
    ) -> None:
        self._members = [_Member(one) for one in doors]
        self._serve = serve
        self._parent = parent
        self._look_seconds = look_seconds
        self._look_due = 0.0

    def run(self, stop_seconds: float) -> int:
        while True:
            self._parent.write(BEAT)
            now = time.monotonic()
            for member in self._members:
                if not member.pid and member.due <= now:
                    self._start(member)
            if self._look_due <= now:
                self._look_due = now + self._look_seconds
                self._kill_hanging()
            waits = [one.due - now for one in self._members if not one.pid]
            received = _wait(min([BEAT_SECONDS, self._look_due - now, *waits]))
            if received is signal.SIGCHLD:
                for member, how in self._ended():
                    member.due = time.monotonic() + member.supervision.pause_seconds()
                    _log.error("process_ended_unasked", process=member.doors.number, how=how)
            elif received is not None:
                return self._stop(stop_seconds)

    def _start(self, member: _Member[_Doors]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        member.heartbeats.received()  # what is left of the predecessor's
        member.supervision.started()
        member.pid = os.fork()
        if not member.pid:
            self._be(member, parent)

    def _be(self, member: _Member[_Doors], parent: int) -> NoReturn:
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
            _end_with(parent)
            self._close_doors(but=member)
            code = self._serve(member.doors, Parent(member.heartbeats.descriptor))
        except BaseException:  # noqa: BLE001  nothing of the parent's stack may go on in here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _close_doors(self, *, but: _Member[_Doors] | None = None) -> None:
        for member in self._members:
            if member is not but:
                member.doors.close()

    def _kill_hanging(self) -> None:
        for member in self._members:
            is_alive = bool(member.heartbeats.received())
            if member.pid and member.supervision.hangs(is_alive=is_alive):
                _log.error("process_hangs", process=member.doors.number)
                os.kill(member.pid, signal.SIGKILL)

    def _ended(self) -> Sequence[tuple[_Member[_Doors], str]]:
        """Return which have ended since the last look, and how."""
        ended = []
        for member in self._members:
            if member.pid:
                pid, status = os.waitpid(member.pid, os.WNOHANG)
                if pid:
                    member.pid = 0
                    ended.append((member, exit_text(os.waitstatus_to_exitcode(status))))
        return ended

    def _stop(self, stop_seconds: float) -> int:
        self._close_doors()
        running = [one for one in self._members if one.pid]
        for member in running:
            os.kill(member.pid, signal.SIGTERM)
        deadline = time.monotonic() + stop_seconds + STOP_MARGIN_SECONDS
        while any(one.pid for one in running) and (left := deadline - time.monotonic()) > 0:
            self._parent.write(BEAT)
            _wait(min(left, BEAT_SECONDS))
            self._ended()
        late = [one for one in running if one.pid]
        for member in late:
            _log.error("process_killed", process=member.doors.number)
            os.kill(member.pid, signal.SIGKILL)
            os.waitpid(member.pid, 0)
        return 1 if late else 0


def _wait(seconds: float) -> signal.Signals | None:
    """Return the next of the signals, or None if it does not come in time."""
    found = signal.sigtimedwait(_AWAITED, max(seconds, 0))
    # CPython returns anything if the time is over after this process was stopped and continued.
    if found is None or found.si_signo not in _AWAITED:
        return None
    return signal.Signals(found.si_signo)


def _end_with(parent: int) -> None:
    """Have the kernel send a SIGTERM when the parent dies, whatever kills it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel watched it
