"""Measures the callbacks of the event loop of `polyglot api`; found on PYTHONPATH, it runs first.

The product runs unchanged. With HOSTILE_CALLBACKS=FILE, each callback that takes more than
`TOLD_NANOSECONDS` of its thread's processor time is a line of the file. Processor time does not
grow when others use the machine. How much of it was the garbage collector's is told as well.
"""

import asyncio
import functools
import gc
import os
import sys
import time
from collections.abc import Callable
from typing import Any

TOLD_NANOSECONDS = 5_000_000
OF_PROTOCOLS = (
    *("connection_made", "connection_lost", "data_received", "eof_received", "buffer_updated"),
    *("pause_writing", "resume_writing"),
)


class _Collections:
    """The time that collecting garbage takes; it happens within some callback."""

    nanoseconds = 0
    generation = 0
    """Of the last one."""
    _began = 0

    @classmethod
    def watch(cls, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            cls._began = time.thread_time_ns()
        else:
            cls.nanoseconds += time.thread_time_ns() - cls._began
            cls.generation = info["generation"]


class _Timed:
    """A callback whose time is taken."""

    __slots__ = ("_callback",)
    file = -1

    def __init__(self, callback: Callable[..., Any]) -> None:
        self._callback = callback

    def __call__(self, *args: Any) -> None:
        began, collecting = time.thread_time_ns(), _Collections.nanoseconds
        try:
            self._callback(*args)
        finally:
            _tell_if_long(self._callback, began, collecting)


def _tell_if_long(callback: Callable[..., Any], began: int, collecting: int) -> None:
    nanoseconds = time.thread_time_ns() - began
    if nanoseconds <= TOLD_NANOSECONDS:
        return
    task = getattr(callback, "__self__", None)
    name = repr(task.get_coro() if isinstance(task, asyncio.Task) else callback)
    line = f"{nanoseconds / 1e6:.1f} {name}"
    if collected := _Collections.nanoseconds - collecting:
        line += f", collecting generation {_Collections.generation}: {collected / 1e6:.1f}"
    line += "\n"
    os.write(_Timed.file, line.encode())


def _timed_method(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any) -> Any:
        began, collecting = time.thread_time_ns(), _Collections.nanoseconds
        try:
            return method(*args)
        finally:
            _tell_if_long(method, began, collecting)

    call.is_timed = True  # type: ignore[attr-defined]
    return call


def _watched(factory: Callable[[], Any]) -> Callable[[], Any]:
    """Return a factory of protocols whose callbacks are timed, but for those compiled to C."""

    def make() -> Any:
        protocol = factory()
        kind = type(protocol)
        for name in OF_PROTOCOLS:
            method = getattr(kind, name, None)
            if method is not None and not hasattr(method, "is_timed"):
                try:
                    setattr(kind, name, _timed_method(method))
                except TypeError:
                    break
        return protocol

    return make


def _install(path: str) -> None:
    import uvloop  # noqa: PLC0415  the other processes have none

    _Timed.file = os.open(path, os.O_WRONLY | os.O_APPEND)
    gc.callbacks.append(_Collections.watch)

    base: Any = uvloop.Loop

    class Measured(base):  # type: ignore[misc]  # its types are an event loop's, and many
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_soon(_Timed(callback), *args, context=context)

        def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_soon_threadsafe(_Timed(callback), *args, context=context)

        def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_later(delay, _Timed(callback), *args, context=context)

        def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
            return super().call_at(when, _Timed(callback), *args, context=context)

        async def create_server(self, factory: Any, *args: Any, **named: Any) -> Any:
            return await super().create_server(_watched(factory), *args, **named)

        async def create_connection(self, factory: Any, *args: Any, **named: Any) -> Any:
            return await super().create_connection(_watched(factory), *args, **named)

        async def create_unix_connection(self, factory: Any, *args: Any, **named: Any) -> Any:
            return await super().create_unix_connection(_watched(factory), *args, **named)

    uvloop.new_event_loop = Measured


if "api" in sys.orig_argv and os.environ.get("HOSTILE_CALLBACKS"):
    _install(os.environ["HOSTILE_CALLBACKS"])
