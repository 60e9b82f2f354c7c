"""The cache epoch: decides which cache copies prove an absence."""

from typing import Protocol


class CacheEpoch(Protocol):
    """The original of the epoch; the cache holds a copy (`flows.reading.cold_cache`)."""

    async def epoch(self) -> str | None:
        """Return the cache epoch, None if none was created.

        It names the server's timeline: after a failover that lost the latest epoch it differs.
        """

    async def found_epoch(self) -> tuple[str, bool]:
        """Return the cache epoch and whether this call created it."""

    async def new_epoch(self) -> str:
        """Raise the cache epoch: from its commit on, no older copy proves an absence."""
