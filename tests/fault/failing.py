"""A process of the system that fails as it is told: `python -m tests.fault.failing api|worker`.

The stores of the process are wrapped, port by port, before anything uses them; so every point lies
right before or right after a call to a store, and the product has no code for it. By environment:

    FAULT_AT     cache.settle:after:3   SIGKILL at the third return of that call
    FAULT_VICTIM 4711 4712              to these processes, instead of this one
    FAULT_FLAKY  0.05:4711              so many of the calls fail, or are slow; seeded
    FAULT_CLOCK  /path                  the file holds seconds by which the clock is wrong
"""

import asyncio
import contextlib
import inspect
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from polyglot_persistence.adapters import clock
from polyglot_persistence.bootstrap import stores
from polyglot_persistence.cli import main
from polyglot_persistence.config import Settings
from polyglot_persistence.domain import order
from polyglot_persistence.errors import PolyglotError, UnavailableError, UnknownOutcomeError

PORTS = ("cache", "queue", "record", "letters", "sales", "search")
MAY_BE_UNKNOWN = {"cache.accept", "queue.publish", "record.persist"}
"""The calls whose contract knows an outcome that nobody knows."""
NEVER_RAISES = {"consumer.ack", "consumer.release"}
SLOW_SECONDS_MAX = 0.5


class Faults:
    """What is to happen at the points of this process."""

    def __init__(self, at: str, victims: str, flaky: str) -> None:
        self._victims = []
        for pid in map(int, victims.split() or [str(os.getpid())]):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                # A handle: another process may have the number by the time.
                self._victims.append(os.pidfd_open(pid))
        self._point, _, nth = at.rpartition(":")
        self._left = int(nth or 0)
        share, _, seed = flaky.partition(":")
        self._share = float(share or 0)
        self._random = random.Random(seed)

    def reach(self, point: str) -> None:
        """Die here, or kill, if this is the place and the time."""
        if point == self._point:
            self._left -= 1
            if not self._left:
                for victim in self._victims:
                    with contextlib.suppress(ProcessLookupError):  # it was quicker
                        signal.pidfd_send_signal(victim, signal.SIGKILL)

    async def call(self, name: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Do what the process asked for, or fail in a way that the port's contract knows."""
        if self._share and name not in NEVER_RAISES and self._random.random() < self._share:
            return await self._fail(name, function, *args, **named)
        self.reach(f"{name}:before")
        result = await function(*args, **named)
        self.reach(f"{name}:after")
        return result

    async def _fail(self, name: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        match self._random.randrange(3):
            case 0:
                raise UnavailableError(f"{name} was not even asked")
            case 1:
                await asyncio.sleep(self._random.uniform(0, SLOW_SECONDS_MAX))
                return await function(*args, **named)
            case _:
                await function(*args, **named)
                lost = f"the answer of {name} was lost"
                error: PolyglotError = UnavailableError(lost)
                if name in MAY_BE_UNKNOWN:
                    error = UnknownOutcomeError(lost)
                raise error


class Failing:
    """Stands for a port; every call passes the points before and after it."""

    def __init__(self, name: str, target: Any, faults: Faults) -> None:
        self._name = name
        self._target = target
        self._faults = faults

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._target, attribute)
        name = f"{self._name}.{attribute}"
        if attribute == "consume":
            return self._consume
        if attribute == "claim_outbox":
            return self._claim_outbox
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **named: Any) -> Any:
            return await self._faults.call(name, found, *args, **named)

        setattr(self, attribute, call)
        return call

    @asynccontextmanager
    async def _consume(self, **named: Any) -> AsyncIterator[Any]:
        async with self._target.consume(**named) as consumer:
            yield Failing("consumer", consumer, self._faults)

    @asynccontextmanager
    async def _claim_outbox(self, *args: Any) -> AsyncIterator[Any]:
        async with self._target.claim_outbox(*args) as batch:
            if batch.orders:
                self._faults.reach("record.claim_outbox:before")
            yield batch
        if batch.orders:
            self._faults.reach("record.claim_outbox:after")


class WrongClock(clock.SystemClock):
    """The machine's clock, wrong by what the file says now."""

    path = Path()

    def now(self) -> datetime:
        """Return the moment that this machine takes for the current one."""
        return datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=self._wrong_by())

    def uuid7(self) -> UUID:
        """Return an id that was made now."""
        return uuid7(nanoseconds=time.time_ns() + int(self._wrong_by() * 1e9))

    def _wrong_by(self) -> float:
        try:
            return float(self.path.read_text() or 0)
        except (OSError, ValueError):
            return 0.0


def _install(environment: dict[str, str]) -> None:
    faults = Faults(*(environment.pop(f"FAULT_{name}", "") for name in ("AT", "VICTIM", "FLAKY")))
    connect = stores.connect

    def connect_failing(settings: Settings) -> stores.Stores:
        real = connect(settings)
        wrapped = {port: Failing(port, getattr(real, port), faults) for port in PORTS}
        return real._replace(**wrapped)  # type: ignore[arg-type]  # a stand-in by duck typing

    stores.connect = connect_failing
    if path := environment.pop("FAULT_CLOCK", ""):
        WrongClock.path = Path(path)
        clock.SystemClock = WrongClock  # type: ignore[misc]
        order.uuid7 = WrongClock().uuid7  # type: ignore[assignment, attr-defined]  # new ids have a clock too


if __name__ == "__main__":
    _install(dict(os.environ))
    sys.argv[0] = "polyglot"
    main()
