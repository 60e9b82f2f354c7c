"""Who may ask a process, as the settings say it, and say it again when their file changes."""

import asyncio

from polyglot_persistence.api.access import Access
from polyglot_persistence.api.rate_limits import RateLimits
from polyglot_persistence.config import Settings, read_api_keys
from polyglot_persistence.ports import Clock
from polyglot_persistence.telemetry import logger
from polyglot_persistence.worker.repeat import repeat

_log = logger("access")

KEYS_INTERVAL_SECONDS = 2.0
"""So long may a key that was taken out of the file still be believed."""


def access_of(settings: Settings, clock: Clock) -> Access:
    """Return what the settings allow now."""
    rate = settings.client_rate_limit
    return Access(
        settings.api_keys,
        without_key=settings.scopes_without_key,
        rate_limits=None if rate is None else RateLimits(rate, clock.monotonic),
    )


async def keep_keys_current(settings: Settings, access: Access, stop: asyncio.Event) -> None:
    """Believe the keys of the settings' file, if they come from one, as it is now.

    While the file cannot be read, the keys that were there last stay valid.
    """
    path = settings.api_keys_file
    if path is None:
        return
    known = settings.api_keys

    async def look() -> bool:
        nonlocal known
        keys = read_api_keys(path)
        if keys != known:
            known = keys
            access.replace_keys(keys)
            _log.info("api_keys_changed", keys=len(keys), clients=sorted({k.name for k in keys}))
        return False

    await repeat("api keys", look, stop, interval_seconds=KEYS_INTERVAL_SECONDS)
