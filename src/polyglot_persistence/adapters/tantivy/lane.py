"""Threads for one kind of work: the event loop never waits for a disk, nor a caller forever.

Invariant: at most `jobs_max` jobs run or wait at once; further ones are refused, not queued.
Invariant: a job runs to its end, even if its caller is canceled or past its deadline.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from polyglot_persistence.errors import PolyglotError, UnavailableError

T = TypeVar("T")


class Lane:
    """A bounded queue of blocking jobs and its threads, in order of arrival."""

    def __init__(self, name: str, *, threads: int, jobs_max: int, timeout_seconds: float) -> None:
        self._name = name
        self._jobs_max = jobs_max
        self._timeout_seconds = timeout_seconds
        self._jobs = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"tantivy-{name}")

    async def run(self, job: Callable[[], T], *, timeout_seconds: float | None = None) -> T:
        """Return the result of the job.

        Raises:
            UnavailableError: the lane is full or closed, the deadline passed (the job may still
                take effect), or the job failed.
        """
        if self._jobs >= self._jobs_max:
            raise UnavailableError(f"search index: {self._jobs} calls to {self._name} are waiting")
        try:
            done = asyncio.get_running_loop().run_in_executor(self._threads, _guarded, job)
        except RuntimeError as error:  # shut down
            raise UnavailableError("search index: closed") from error
        self._jobs += 1
        done.add_done_callback(self._ended)
        seconds = timeout_seconds or self._timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(done)
        except TimeoutError as error:
            raise UnavailableError(
                f"search index: no answer to {self._name} within {seconds} s"
            ) from error

    def close(self) -> None:
        """Accept no more jobs and drop the waiting ones; a running one is not interrupted."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ended(self, done: asyncio.Future[Any]) -> None:
        self._jobs -= 1
        if not done.cancelled():
            done.exception()  # marks it as handled: its caller may be gone


def _guarded(job: Callable[[], T]) -> T:
    """Turn all of the engine's errors, even panics, into `UnavailableError`."""
    try:
        return job()
    except PolyglotError:
        raise
    except (ValueError, OSError, RuntimeError) as error:  # tantivy's errors are ValueErrors
        raise UnavailableError(f"search index: {error}") from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # not importable, and not an Exception
            raise UnavailableError(f"search index: {error}") from error
        raise
