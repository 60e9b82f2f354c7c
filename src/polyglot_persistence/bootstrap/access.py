"""Access to a process by the settings, and again when their file of API keys changes."""

import asyncio

from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.failed_authentication import LINES_RATE, FailedAuthentication
from polyglot_persistence.api.web.rate_limits import RateLimits
from polyglot_persistence.config import Settings, read_api_keys
from polyglot_persistence.config.addresses.listening import is_loopback
from polyglot_persistence.domain.access import KeyList, Rate, Scope
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.runtime.repeat import repeat
from polyglot_persistence.telemetry import API_KEYS_FAULTS, logger

_log = logger("access")

KEYS_INTERVAL_SECONDS = 1.0
"""Between two looks at the file of keys. A key that was taken out is accepted, and a stream of its
client open, for at most 2 s: under `polyglot up` of root what is looked at is a copy, which may be
older (embedded/handed_keys.py)."""

FAULTS_LOGGED_MAX = 10


def access_of(settings: Settings, clock: Clock) -> Access:
    """Return what the settings allow now."""

    def limits(rate: Rate | None, policy: bytes) -> RateLimits | None:
        return None if rate is None else RateLimits(rate, clock.monotonic, policy=policy)

    return Access(
        settings.api_keys,
        without_key=settings.scopes_without_key,
        rate_limits=limits(settings.client_rate_limit, b"client"),
        failures=FailedAuthentication(
            limits(settings.http.unauthenticated_rate_limit, b"unauthenticated"),
            RateLimits(LINES_RATE, clock.monotonic),
        ),
    )


def warn_of_strangers(settings: Settings) -> None:
    """Log a warning if any client on another machine may place orders without a key."""
    if Scope.WRITE in settings.scopes_without_key and not is_loopback(settings.api_host):
        _log.warning(
            "anybody_may_place_orders",
            host=settings.api_host,
            port=settings.api_port,
            advice="set API_KEYS (`polyglot api-keys new` makes one), or listen on 127.0.0.1",
        )


async def keep_keys_current(settings: Settings, access: Access, stop: asyncio.Event) -> None:
    """Keep the accepted keys those of the settings' file, if there is one, until stopped.

    Fails closed: an entry that cannot be read is no key, and a file that is missing or empty holds
    none. The other entries count all the same.
    """
    path = settings.api_keys_file
    if path is None:
        return
    known = KeyList(settings.api_keys, [])

    async def look() -> None:
        nonlocal known
        before, known = known, read_api_keys(path)
        if known.keys != before.keys:
            access.replace_keys(known.keys)
            clients = sorted({key.name for key in known.keys})
            _log.info("api_keys_changed", keys=len(known.keys), clients=clients)
        if known.faults != before.faults:
            API_KEYS_FAULTS.set(len(known.faults))
            if known.faults:
                _log.error(
                    "api_keys_file_faulty",
                    path=path,
                    keys=len(known.keys),
                    faults=known.faults[:FAULTS_LOGGED_MAX],
                )

    await repeat("api_keys", look, stop, interval_seconds=KEYS_INTERVAL_SECONDS)
