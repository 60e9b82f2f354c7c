"""An event loop whose time is a number: nothing real is waited for, and nothing real decides.

Every handle belongs to the simulated process whose context it carries, or to the world around the
processes (stores, networks, clients). A process can be

- paused: its handles are parked while time goes on, as by SIGSTOP; a *suspended* one also misses
  the time on its timers, as in a machine that was suspended;
- killed: its handles are dropped for ever, as by kill -9. No `finally` of it runs while the world
  is simulated; `SimulatedLoop.dispose` closes its coroutines quietly afterwards.

Invariant: the order of steps depends on the handles' times and on the order in which they were
made, and on nothing else: no wall clock, no `id()`, no hash of a string.
"""

import asyncio
import contextlib
import contextvars
import gc
import heapq
import itertools
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

TICK_SECONDS = 1e-7
"""What a timer takes at least: a caller that waits for the rest of its time, which rounding may
leave at next to nothing, would wait for ever if time stood still."""

COLLECTED_RUNS = 8
"""Garbage is collected once in so many runs; once takes as long for all of them as for one."""
_runs = itertools.count(1)

_PROCESS: contextvars.ContextVar["Execution"] = contextvars.ContextVar("process")


class Execution:
    """What the loop knows of one process: whether it runs, and what it would do next."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.missed_seconds = 0.0
        """Time that its timers did not see pass."""
        self.parked: deque[_Handle] = deque()
        self.parked_timers: list[tuple[float, int, _Handle]] = []
        """Timers that fell due while it was paused."""
        self.tasks: Sequence[asyncio.Task[Any]] = ()
        """Kept from the moment of its death, so that nothing of it is collected and run."""
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)


class _Handle:
    """A callback that is due; what `call_soon` and `call_at` return."""

    __slots__ = ("_when", "args", "callback", "context", "is_cancelled", "process")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        process: Execution | None,
        when: float,
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process = process
        self.is_cancelled = False
        self._when = when

    def cancel(self) -> None:
        self.is_cancelled = True
        self.args = ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when


class _Task(asyncio.Task[Any]):
    """A task that knows its process, and whose hash is a number: sets of them have one order."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        *,
        loop: "SimulatedLoop",
        number: int,
        process: Execution | None,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        self.number = number
        self.process = process
        super().__init__(coroutine, loop=loop, name=name or f"task {number}", context=context)

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs handles in the order of their simulated times."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the simulation began, which no fault changes."""
        self.steps = 0
        self.failures: list[str] = []
        """What escaped a callback, or was reported to the loop: each is a bug of the product."""
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._order = itertools.count()
        self._task_numbers = itertools.count(1)
        self._current: Execution | None = None
        self._world = contextvars.Context()
        self._disposing = False

    # --- what asyncio asks of a loop ---------------------------------------------------------

    def time(self) -> float:
        """Return the time as the process's timers see it."""
        return self.now - self._current.missed_seconds if self._current else self.now

    def call_soon(  # type: ignore[override]  # its callbacks are of any kind
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        if context is None:  # an empty one is false
            context = contextvars.copy_context()
        handle = _Handle(callback, args, context, context.get(_PROCESS), self.now)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]  # its callbacks are of any kind
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # its callbacks are of any kind
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS)
        handle = _Handle(callback, args, context, process, when)
        due = when if process is None else when + process.missed_seconds
        due = max(due, self.now + TICK_SECONDS)
        heapq.heappush(self._timers, (due, next(self._order), handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> Any:
        number = next(self._task_numbers)
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS)
        return _Task(coro, loop=self, number=number, process=process, name=name, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self._disposing and error is not None:
            self._report(f"{context['message']}: {error!r}")

    # --- the world's side --------------------------------------------------------------------

    def world_later(self, delay: float, callback: Callable[..., object], *args: Any) -> _Handle:
        """Call back after so long on behalf of no process."""
        due = self.now + delay
        handle = _Handle(callback, args, self._world, None, due)
        heapq.heappush(self._timers, (due, next(self._order), handle))
        return handle

    def world_task(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a coroutine that belongs to no process."""
        task: asyncio.Task[Any] = self.create_task(coroutine, context=self._world.copy())
        return task

    def start(self, process: Execution, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a coroutine as a part of a process."""
        task: asyncio.Task[Any] = self.create_task(coroutine, context=process.context.copy())
        return task

    def resume(self, process: Execution, *, missed_seconds: float = 0.0) -> None:
        """Let a paused process go on where it was; its timers did not see `missed_seconds`."""
        process.paused = False
        if missed_seconds:
            process.missed_seconds += missed_seconds
            self._timers += process.parked_timers
            self._timers = [
                (due + missed_seconds if handle.process is process else due, order, handle)
                for due, order, handle in self._timers
            ]
            heapq.heapify(self._timers)
        else:
            process.parked.extend(handle for _, _, handle in process.parked_timers)
        process.parked_timers.clear()
        self._ready.extend(process.parked)
        process.parked.clear()

    def kill(self, process: Execution) -> None:
        """End a process at once; nothing of it runs any more."""
        process.alive = False
        process.parked.clear()
        process.parked_timers.clear()
        process.tasks = [task for task in self._tasks() if task.process is process]

    def run_until(self, end: float) -> None:
        """Run everything that is due until a moment; time is that moment afterwards."""
        ready, timers = self._ready, self._timers
        while True:
            while ready:
                self._run(ready.popleft())
            timers = self._timers  # a resumption replaces it
            if not timers or timers[0][0] > end:
                break
            timer = heapq.heappop(timers)
            self.now, _, handle = timer
            process = handle.process
            if process is not None and process.paused and process.alive:
                process.parked_timers.append(timer)
            else:
                self._run(handle)
        self.now = max(self.now, end)

    def _run(self, handle: _Handle) -> None:
        if handle.is_cancelled:
            return
        process = handle.process
        if process is not None:
            if not process.alive:
                return
            if process.paused:
                process.parked.append(handle)
                return
        self.steps += 1
        self._current = process
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:  # noqa: BLE001  a bug of the product, to be reported
            self._report(f"{handle.callback!r}: {error!r}")
        finally:
            self._current = None

    def _report(self, failure: str) -> None:
        self.failures.append(failure)

    def dispose(self) -> None:
        """Close every coroutine that is left; what its `finally` does has no effect any more."""
        self._disposing = True
        self._ready.clear()
        self._timers.clear()
        for task in self._tasks():
            coroutine: Any = task.get_coro()
            for _ in range(3):  # one that awaits in a `finally` ignores the first
                with contextlib.suppress(BaseException):
                    coroutine.close()
                    break

    def _tasks(self) -> list[_Task]:
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, _Task)]
        return sorted(tasks, key=lambda task: task.number)


@contextmanager
def running() -> Iterator[SimulatedLoop]:
    """Give a loop that is the thread's while the context lasts; then dispose of it in silence.

    The garbage collector is off meanwhile: it would run `finally` blocks of dead processes. It
    runs after every few runs, each of which leaves some megabytes.
    """
    loop = SimulatedLoop()  # type: ignore[abstract]  # no sockets, no signals, no processes
    previous_hook = sys.unraisablehook
    collected = gc.isenabled()
    gc.disable()
    sys.unraisablehook = lambda _: None
    asyncio._set_running_loop(loop)
    try:
        yield loop
    finally:
        loop.dispose()
        asyncio._set_running_loop(None)
        if next(_runs) % COLLECTED_RUNS == 0:
            gc.collect()
        sys.unraisablehook = previous_hook
        if collected:
            gc.enable()
