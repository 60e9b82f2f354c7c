"""A circuit breaker per store: one failure opens it, a successful ping closes it.

While it is open the write path does not wait for the store, so a hanging store costs one deadline
in all and not one per request.
"""

from collections.abc import Awaitable, Callable

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.telemetry import STORE_UP, logger

_log = logger("breaker")

LOOKS_IN_VAIN_MAX = 2
"""After this many failed looks in a row a store is away: a single failure may be transient."""

FIRST_LOOKS_IN_VAIN_MAX = 8
"""The same for a store not seen yet: both may have just started, and a worker makes the first
search index. Some 15 s at the interval of an API process."""


class Breaker:
    """Decides whether a store is worth waiting for."""

    def __init__(self, store: str, ping: Callable[[], Awaitable[object]]) -> None:
        self.store = store
        self._ping = ping
        self._open = False
        self._looks_in_vain = 0
        self._looks_in_vain_max = FIRST_LOOKS_IN_VAIN_MAX
        STORE_UP.labels(store).set(1)

    @property
    def is_open(self) -> bool:
        """Whether the store has failed without a successful ping since."""
        return self._open

    def failed(self, error: PolyglotError) -> None:
        """Open it; the next successful `probe` closes it."""
        if not self._open:
            self._open = True
            STORE_UP.labels(self.store).set(0)
            _log.warning("store_away", store=self.store, error=str(error))

    async def look(self) -> None:
        """Ping the store whether it is open or not; for a store whose calls report no failures.

        It opens after several failures in a row.
        """
        try:
            await self._ping()
        except PolyglotError as error:
            self._looks_in_vain += 1
            if self._looks_in_vain >= self._looks_in_vain_max:
                self.failed(error)
        else:
            self._looks_in_vain = 0
            self._looks_in_vain_max = LOOKS_IN_VAIN_MAX
            self._close()

    async def probe(self) -> None:
        """Ping the store if it is open; a loop calls this repeatedly."""
        if not self._open:
            return
        try:
            await self._ping()
        except PolyglotError:
            return
        self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            STORE_UP.labels(self.store).set(1)
            _log.warning("store_back", store=self.store)
