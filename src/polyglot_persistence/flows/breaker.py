"""A circuit breaker per store: one failure opens it, a successful ping closes it.

While it is open the write path does not wait for the store, so that a store that hangs costs one
deadline in all and not one a request.
"""

from collections.abc import Awaitable, Callable

from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.telemetry import STORE_UP, logger

_log = logger("breaker")


class Breaker:
    """Knows whether a store is worth waiting for."""

    def __init__(self, store: str, ping: Callable[[], Awaitable[object]]) -> None:
        self.store = store
        self._ping = ping
        self._open = False
        self._looked_in_vain = False
        STORE_UP.labels(store).set(1)

    @property
    def is_open(self) -> bool:
        """Whether the store failed and has not been seen well since."""
        return self._open

    def failed(self, error: PolyglotError) -> None:
        """Open it; the next `probe` that succeeds closes it."""
        if not self._open:
            self._open = True
            STORE_UP.labels(self.store).set(0)
            _log.warning("store_away", store=self.store, error=str(error))

    async def look(self) -> None:
        """Ping the store whether it is open or not, for a store that nobody else tells of.

        It opens at the second failure in a row: the first may be a moment's.
        """
        try:
            await self._ping()
        except PolyglotError as error:
            if self._looked_in_vain:
                self.failed(error)
            self._looked_in_vain = True
        else:
            self._looked_in_vain = False
            self._close()

    async def probe(self) -> None:
        """Ping the store if it is open; called again and again by a loop."""
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
