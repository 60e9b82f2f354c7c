"""The machine's clock."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

_MONOTONIC: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops CLOCK_MONOTONIC while the machine is suspended; macOS does not (clock_gettime(2) of
both). Proofs of absence rest on these seconds (`flows/reading/cold_cache.py`)."""


class SystemClock:
    """`ports.Clock` over the operating system."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(_MONOTONIC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
