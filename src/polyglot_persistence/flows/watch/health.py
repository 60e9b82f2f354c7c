"""The state of each store, and the resulting state of the service."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from polyglot_persistence.errors import PolyglotError, UnavailableError
from polyglot_persistence.ports.state import StoreState
from polyglot_persistence.telemetry import STORE_UP

PING_SECONDS_MAX = 2.0
"""Health checks need a short deadline: the caller acts on the answer."""


FRESH_SECONDS = 1.0


class Pingable(Protocol):
    """Every port."""

    async def ping(self) -> StoreState:
        """Return the state of the store, or raise `UnavailableError`."""


class StoreHealth(NamedTuple):
    """One store's state, or the reason why there is none, worded for operators."""

    state: StoreState | None
    reason: str = ""
    remedy: str = ""
    """The remedy, if known."""
    has_untrusted_certificate: bool = False


class Health(NamedTuple):
    """The service as a whole."""

    stores: Mapping[str, StoreHealth]
    accepting: bool
    """Whether an order can be made durable (cache or queue is there)."""
    mode: str
    """`normal`, or the missing parts: `degraded: queue away, not consuming`."""


LEAVING = Health({}, accepting=False, mode="stopping")
"""What a process that is about to end answers."""


@dataclass
class HealthFlow:
    """Pings all stores at once, and checks whether a worker consumes."""

    stores: Mapping[str, Pingable]
    consumes: Callable[[], bool] | None = None
    is_leaving: bool = field(default=False, init=False)
    """Whether the process is about to end, so that requests should go to others."""

    async def check(self) -> Health:
        """Return every store's state; it never raises."""
        answers = await asyncio.gather(*[_ask(store) for store in self.stores.values()])
        stores = dict(zip(self.stores, answers, strict=True))
        for name, health in stores.items():
            STORE_UP.labels(name).set(health.state is not None)
        away = [name for name, health in stores.items() if health.state is None]
        accepting = not {"cache", "queue"} <= set(away)
        missing = [f"{', '.join(away)} away"] if away else []
        if self.consumes is not None and not self.consumes():
            missing.append("not consuming")
        return Health(stores, accepting, f"degraded: {', '.join(missing)}" if missing else "normal")


class SharedHealth:
    """Shares one check among concurrent callers, to spare the stores."""

    def __init__(self, health: HealthFlow) -> None:
        self._health = health
        self._checking: asyncio.Future[Health] | None = None
        self._fresh_until = 0.0

    async def check(self) -> Health:
        """Return the state of all stores, at most `FRESH_SECONDS` old; it never raises.

        `LEAVING`, at once, if the process is about to end.
        """
        if self._health.is_leaving:
            return LEAVING
        checking = self._checking
        now = asyncio.get_running_loop().time()
        if checking is None or (checking.done() and now >= self._fresh_until):
            checking = self._checking = asyncio.ensure_future(self._check())
        return await asyncio.shield(checking)  # a caller that leaves cancels nothing for the others

    async def _check(self) -> Health:
        health = await self._health.check()
        self._fresh_until = asyncio.get_running_loop().time() + FRESH_SECONDS
        return health


async def _ask(store: Pingable) -> StoreHealth:
    try:
        async with asyncio.timeout(PING_SECONDS_MAX):
            return StoreHealth(await store.ping())
    except UnavailableError as error:
        return StoreHealth(None, error.reason, error.remedy, _is_of_certificate(error))
    except PolyglotError as error:
        return StoreHealth(None, str(error))
    except TimeoutError:
        return StoreHealth(None, f"no answer within {PING_SECONDS_MAX:g} s")


def _is_of_certificate(error: BaseException | None) -> bool:
    """Whether the error was caused by a server's certificate, which was not verified."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
