"""Preforked processes behind one port; the parent restarts those that exit or hang.

Each process has a listening socket of its own, made before the fork; the kernel spreads connections
over them (SO_REUSEPORT, socket(7)). The parent keeps them open, so a client that connects to a dead
process waits for its successor and is not refused.

```
  start   one fork a process        keep   one that ends or hangs is forked again, see `supervision`
  stop    close the sockets here ── SIGTERM to each ── wait ── SIGKILL to those that are late
```

Invariant: until it forks, this process has no thread, no event loop, no connection, and has made no
id: the fork copies no state that two processes must not share.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn, Protocol

from polyglot_persistence.processes.heartbeat import BEAT, BEAT_SECONDS, Heartbeats, Parent
from polyglot_persistence.processes.supervision import LOOK_SECONDS, Supervision, exit_text
from polyglot_persistence.telemetry import logger

_log = logger("api")

STOP_MARGIN_SECONDS = 5.0
"""Time beyond its own deadline that a process gets before it is killed."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_AWAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Program(Protocol):
    """The program of one process."""

    @property
    def number(self) -> int:
        """The number of the process, from 1 on."""

    def run(self, parent: Parent) -> int:
        """Run until SIGTERM, sending heartbeats to the parent; return the exit code."""

    def close(self) -> None:
        """Close its sockets, in a process that does not use them."""


def run_several(
    programs: Sequence[Program],
    parent: Parent,
    *,
    stop_seconds: float,
    look_seconds: float = LOOK_SECONDS,
) -> int:
    """Run each program in a process of its own until SIGTERM or SIGINT; return 0.

    This process sends heartbeats to its own parent. `stop_seconds` is how long a program may take
    to stop; if one had to be killed, return 1.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)  # `_wait` takes them, one at a time
    members = [_Member(one, programs) for one in programs]
    look_due = 0.0
    while True:
        parent.write(BEAT)
        now = time.monotonic()
        for member in members:
            if not member.pid and member.due <= now:
                member.start()
        if look_due <= now:
            look_due = now + look_seconds
            for member in members:
                member.look()
        waits = [member.due - now for member in members if not member.pid]
        received = _wait(min([BEAT_SECONDS, look_due - now, *waits]))
        if received is signal.SIGCHLD:
            for member, how in _ended(members):
                member.due = time.monotonic() + member.supervision.pause_seconds()
                _log.error("process_ended_unasked", process=member.program.number, how=how)
        elif received is not None:
            return _stop(members, parent, stop_seconds)


class _Member:
    """One of the processes and its successors."""

    def __init__(self, program: Program, programs: Sequence[Program]) -> None:
        self.program = program
        self.pid = 0
        self.supervision = Supervision()
        self.due = 0.0
        """Time of the next (re)start, on the monotonic clock; only while it does not run."""
        self._others = [one for one in programs if one is not program]
        self._heartbeats = Heartbeats()

    def start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._heartbeats.received()  # the rest of the predecessor's signs
        self.supervision.started()
        self.pid = os.fork()
        if not self.pid:
            self._be(parent)

    def _be(self, parent: int) -> NoReturn:
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
            _end_with(parent)
            for other in self._others:
                other.close()
            code = self.program.run(Parent(self._heartbeats.descriptor))
        except BaseException:  # noqa: BLE001  nothing of the parent's stack may go on in here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def look(self) -> None:
        """Kill it if it hangs."""
        is_alive = self._heartbeats.received() != b""
        if self.pid and self.supervision.hangs(is_alive=is_alive):
            _log.error("process_hangs", process=self.program.number)
            os.kill(self.pid, signal.SIGKILL)


def _ended(members: Sequence[_Member]) -> Iterator[tuple[_Member, str]]:
    """Yield the members that have exited since the last call, and how."""
    for member in members:
        if member.pid:
            pid, status = os.waitpid(member.pid, os.WNOHANG)
            if pid:
                member.pid = 0
                yield member, exit_text(os.waitstatus_to_exitcode(status))


def _stop(members: Sequence[_Member], parent: Parent, stop_seconds: float) -> int:
    for member in members:
        member.program.close()
        if member.pid:
            os.kill(member.pid, signal.SIGTERM)
    deadline = time.monotonic() + stop_seconds + STOP_MARGIN_SECONDS
    while any(one.pid for one in members) and (left := deadline - time.monotonic()) > 0:
        parent.write(BEAT)
        _wait(min(left, BEAT_SECONDS))
        list(_ended(members))
    late = [one for one in members if one.pid]
    for member in late:
        _log.error("process_killed", process=member.program.number)
        os.kill(member.pid, signal.SIGKILL)
        os.waitpid(member.pid, 0)
    return 1 if late else 0


def _wait(seconds: float) -> signal.Signals | None:
    """Return the next of the signals, or None after a timeout."""
    found = signal.sigtimedwait(_AWAITED, max(seconds, 0))
    # CPython returns garbage if the time ran out while this process was stopped.
    if found is None or found.si_signo not in _AWAITED:
        return None
    return signal.Signals(found.si_signo)


def _end_with(parent: int) -> None:
    """Make the kernel send a SIGTERM when the parent dies for any reason (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before prctl took effect
