"""A kept-alive link to a server: opened at its first use, and again when it is lost.

Invariant: while the server is away calls fail at once; one background task tries to connect.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.runtime.pauses import Pauses

PAUSE_FIRST_SECONDS: Final = 0.05


class Link(Protocol):
    """The link to keep alive; once closed it never comes back."""

    @property
    def closed_because(self) -> str:
        """The reason why it is unusable; empty while it is usable."""

    def close(self, reason: str) -> None:
        """End it at once."""


AnyLink = TypeVar("AnyLink", bound=Link)


class KeepAlive(Generic[AnyLink]):
    """The link to one server; pauses between attempts double up to `pause_seconds_max`."""

    def __init__(
        self, server: str, open_link: Callable[[], Awaitable[AnyLink]], *, pause_seconds_max: float
    ) -> None:
        self.latest: AnyLink | None = None
        """The last opened link; it may be closed."""
        self._server = server
        self._open_link = open_link
        self._pause_seconds_max = pause_seconds_max
        self._connecting: asyncio.Task[None] | None = None
        self._first_attempt = asyncio.Event()
        self._error: Exception | None = None
        self._closed = False

    async def get(self) -> AnyLink:
        """Return the link, after at most one attempt, and at once if the last one failed.

        Raises:
            UnavailableError: there is none.
        """
        link = self.latest
        if link is not None and not link.closed_because:
            return link
        if self._closed:
            raise UnavailableError(f"the connection to {self._server} was closed")
        if self._connecting is None or self._connecting.done():
            self._first_attempt.clear()
            self._connecting = asyncio.create_task(self._connect())
        await self._first_attempt.wait()
        link = self.latest
        if link is None or link.closed_because:
            raise self._away(link.closed_because if link else "") from self._error
        return link

    def _away(self, reason: str) -> UnavailableError:
        error, remedy = self._error, ""
        if isinstance(error, UnavailableError) and not reason:
            reason, remedy = error.reason, error.remedy
        reason = reason or str(error) or type(error).__name__
        return UnavailableError(f"{self._server} is away: {reason}", remedy=remedy)

    async def close(self) -> None:
        """Open no further link; the owner closes the latest one. Idempotent."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        self._first_attempt.set()

    async def _connect(self) -> None:
        pauses = Pauses(PAUSE_FIRST_SECONDS, self._pause_seconds_max)
        if self.latest is not None:
            self.latest.close("given up")  # a part of it may still be open
            self.latest = None
        while True:
            try:
                self.latest = await self._open_link()
            except Exception as error:  # noqa: BLE001  # whatever it is, callers wait for it
                self._error = error
            else:
                self._error = None
                return
            finally:
                self._first_attempt.set()
            await asyncio.sleep(pauses.next())
