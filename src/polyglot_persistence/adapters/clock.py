"""The machine's clock."""

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock` over the operating system."""

    def now(self) -> datetime:
        """Return the current moment in UTC, to the microsecond."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await asyncio.sleep(seconds)
