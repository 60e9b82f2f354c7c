"""The project's own processes under fault: started again whenever they end, as a supervisor does.

Invariant: only processes started here are signalled.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.processes import REPOSITORY, eventually, hears

RESTART_SECONDS = 0.1
START_SECONDS = 60.0
"""Until it hears a signal."""
STOP_SECONDS = 120.0


class Member:
    """One API or worker process, and its successors."""

    def __init__(
        self, role: str, environment: Callable[[], Mapping[str, str]], log_path: Path
    ) -> None:
        self.role = role
        self.log_path = log_path
        self.armed: deque[str] = deque()
        """Points at which the next ones die, one after the other (`failing`, FAULT_AT)."""
        self.victims: Sequence[int] = ()
        """Who dies there instead (FAULT_VICTIM)."""
        self.every: dict[str, str] = {}
        """Faults of all that are started from now on."""
        self.died_at: list[str] = []
        """Where it died, or had others die."""
        self.ended_with: list[int] = []
        """The exit codes of all that ended, as `subprocess` has them."""
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._point = ""
        self._killed_by_us = False
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._spawn()
        self._keeping = asyncio.create_task(self._keep())

    def kill(self) -> None:
        """End it without a word; it is started again."""
        self._killed_by_us = True
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def tell_to_stop(self) -> None:
        """Send SIGTERM as soon as that would not simply end it: it may still be starting."""
        await eventually(
            lambda: self.pid is None or hears(self.pid, signal.SIGTERM),
            START_SECONDS,
            f"{self.role}'s start",
        )
        self.send(signal.SIGTERM)

    async def stop(self) -> int:
        """End it in order and for good; return its exit code."""
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        self.send(signal.SIGCONT)
        await self.tell_to_stop()
        process = self._process
        assert process is not None
        await eventually(lambda: process.poll() is not None, STOP_SECONDS, f"{self.role}'s end")
        return process.returncode

    def abandon(self) -> None:
        """Leave no process behind."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def _spawn(self) -> None:
        self._point = self.armed.popleft() if self.armed else ""
        self._killed_by_us = False
        faults = dict(self.every)
        if self._point:
            faults["FAULT_AT"] = self._point
            faults["FAULT_VICTIM"] = " ".join(map(str, self.victims))
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fault.failing", self.role],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env={**os.environ, **self._environment(), **faults},
                start_new_session=True,
            )

    async def _keep(self) -> None:
        while True:
            await eventually(lambda: self.pid is None, float("inf"))
            assert self._process is not None
            self.ended_with.append(self._process.returncode)
            if self._point and not self._killed_by_us:
                self.died_at.append(self._point)
            await asyncio.sleep(RESTART_SECONDS)
            self._spawn()
