"""The clock, injected."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time, injected so that tests need not wait for it."""

    def now(self) -> datetime:
        """Return the current moment in UTC, to the microsecond."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps, and runs while the machine is suspended."""

    async def sleep(self, seconds: float) -> None:
        """Return after the given seconds."""
