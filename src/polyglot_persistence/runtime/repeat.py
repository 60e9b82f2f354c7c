"""The loop shared by all periodic work: step, pause, step, until stopped.

Invariant: a step's error never ends a loop; it is logged, and the pause grows, with jitter.
Invariant: an outage is logged once, and not at each retry, however long it lasts.
Invariant: `stop` ends a pause at once and lets the current step finish.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NewType

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.ports.leadership import Lead, Leadership
from polyglot_persistence.runtime.pauses import Pauses, jittered
from polyglot_persistence.telemetry import LOOP_SUCCESS, RETRIES, logger

_log = logger("loop")

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_LAST_SECONDS = 5.0
LEAD_RETRY_SECONDS = 5.0
ERRORS_TOLD_MAX = 5
"""Maximum number of logged errors per outage."""

More = NewType("More", bool)
"""Whether there is more to do at once. No other bool passes for it when types are checked."""

Step = Callable[[], Awaitable[More | None]]
"""One step; None is `More(False)`."""


class Backoff:
    """Pauses after failures in a row; each one is counted as a retry, labeled `of`."""

    def __init__(self, stop: asyncio.Event, of: str) -> None:
        self._stop = stop
        self._of = of
        self._retries = RETRIES.labels(of)
        self._pauses = Pauses(BACKOFF_FIRST_SECONDS, BACKOFF_LAST_SECONDS)
        self._told: set[str] = set()

    def succeeded(self) -> None:
        """Reset to the shortest pause, and log the end of the errors."""
        self._pauses.begin_again()
        if self._told:
            _log.warning("recovered", what=self._of)
            self._told.clear()

    def is_news(self, error: Exception) -> bool:
        """Return whether the caller should log the error: the first of its text in an outage."""
        if str(error) in self._told or len(self._told) >= ERRORS_TOLD_MAX:
            return False
        self._told.add(str(error))
        return True

    async def pause(self, seconds_max: float = BACKOFF_LAST_SECONDS) -> None:
        """Wait longer than last time, but at most `seconds_max`, or until stopped."""
        self._retries.inc()
        await pause(self._stop, min(self._pauses.next(), seconds_max))


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Return after this many seconds, or as soon as `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def repeat(name: str, step: Step, stop: asyncio.Event, *, interval_seconds: float) -> None:
    """Repeat a step, with a pause whenever it has no more to do."""
    backoff = Backoff(stop, name)
    succeeded = LOOP_SUCCESS.labels(name)
    while not stop.is_set():
        try:
            more = await step()
        except PolyglotError as error:
            if backoff.is_news(error):
                _log.warning("step_failed", loop=name, error=str(error))
            await backoff.pause()
        else:
            backoff.succeeded()
            succeeded.set_to_current_time()
            if not more:
                await pause(stop, interval_seconds)


async def repeat_as_leader(
    record: Leadership, role: str, step: Step, stop: asyncio.Event, *, interval_seconds: float
) -> None:
    """Repeat a step in the one process that has the role; the others stand by."""
    backoff = Backoff(stop, role)
    succeeded = LOOP_SUCCESS.labels(role)

    async def counted() -> More | None:
        more = await step()
        succeeded.set_to_current_time()
        return more

    while not stop.is_set():
        try:
            async with record.lead(role) as lead:
                if lead is None:
                    backoff.succeeded()
                else:
                    await _repeat_while_leading(lead, counted, stop, interval_seconds, backoff)
        except PolyglotError as error:
            if backoff.is_news(error):
                _log.warning("step_failed", loop=role, error=str(error))
            await backoff.pause()
        else:
            await pause(stop, jittered(LEAD_RETRY_SECONDS))


async def _repeat_while_leading(
    lead: Lead, step: Step, stop: asyncio.Event, interval_seconds: float, backoff: Backoff
) -> None:
    while not stop.is_set():
        await lead.confirm()
        more = await step()
        backoff.succeeded()
        if not more:
            await pause(stop, interval_seconds)
