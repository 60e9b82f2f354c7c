"""Reading a request's body, bounded in bytes.

How long a body may take is for the connection below (`connection`), so that it is the same for
whatever reads it: it ends the wait with a `SlowSenderError`.

Invariant: no body is held beyond its limit, however it announces itself.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.requests import Request
from starlette.types import Message

from polyglot_persistence.api.web.problems import MALFORMED, TOO_SLOW, problem
from polyglot_persistence.api.web.replies import Reply
from polyglot_persistence.errors import MalformedError, PolyglotError, TooLargeError

DISCARD_BYTES_MAX = 2**20
DISCARD_SECONDS_MAX = 2.0

_DIGITS = re.compile(r"[0-9]+", re.ASCII)


class SlowSenderError(PolyglotError):
    """The client kept the server waiting for the body for too long (408)."""


class BrokenBodyError(SlowSenderError):
    """Nobody can say where the body ends, so it never will (400)."""


class ClientGoneError(PolyglotError):
    """The client hung up before its body was complete; nobody is there to be answered."""


def body_problem(error: PolyglotError, path: str) -> Reply:
    """Return the answer to a body that was not complete when it had to be."""
    kind = MALFORMED if isinstance(error, BrokenBodyError) else TOO_SLOW
    return problem(kind, str(error), path)


class BodyReader:
    """Hands out the chunks of one request's body."""

    def __init__(self, request: Request) -> None:
        self._request = request
        headers = request.headers
        self.complete = "content-length" not in headers and "transfer-encoding" not in headers
        """Whether the body has been read to its end."""
        self.check_again: Callable[[], None] = lambda: None
        """Raises if the client may not ask any more for what it may have asked for a while ago."""
        self._release: Callable[[int], None] = request.scope.get(
            "polyglot.release", lambda _size: None
        )

    async def chunks(self, *stopping: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield the body as it comes; the consumer keeps no chunk when it asks for the next one.

        Ends before the body does (`complete` tells) once one of `stopping` is set.

        Raises:
            SlowSenderError: the body did not come in time, or never can.
            ClientGoneError: the client hung up.
        """
        async for chunk in self._chunks(*stopping):
            yield chunk
            self._release(len(chunk))

    async def _chunks(self, *stopping: asyncio.Event) -> AsyncIterator[bytes]:
        while not self.complete:
            message = await self._receive(stopping)
            if message is None:
                return
            if message["type"] != "http.request":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            self.complete = not message.get("more_body", False)
            if chunk:
                yield chunk

    async def _receive(self, stopping: Sequence[asyncio.Event]) -> Message | None:
        if not stopping:
            return await self._request.receive()
        received = asyncio.ensure_future(self._request.receive())
        waits = [received, *(asyncio.ensure_future(event.wait()) for event in stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return received.result() if received.done() else None
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            # An error that is raised here holds this frame, and its future would hold the error.
            waits.clear()
            del received

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body.

        Raises:
            TooLargeError: by its `Content-Length` already, or as it comes.
            UnauthenticatedError: its API key was revoked meanwhile.
        """
        announced = self._request.headers.get("content-length")
        if announced is not None and int(_digits(announced)) > bytes_max:
            raise TooLargeError(f"the body must have at most {bytes_max} bytes, not {announced}")
        parts = []
        size = 0
        async for chunk in self._chunks():
            size += len(chunk)
            if size > bytes_max:
                raise TooLargeError(f"the body must have at most {bytes_max} bytes, and has more")
            parts.append(chunk)
        self.check_again()
        return b"".join(parts)

    async def discard(self) -> bool:
        """Read on for a moment after a refusal, and return whether that was the end of the body.

        A client reads the answer only after it has sent its body, and a connection that is closed
        over unread bytes is reset, answer and all.
        """
        if self.complete:
            return True
        if self._request.headers.get("expect", "").lower() == "100-continue":
            return False  # it waits for our word, and must not hear "continue"
        size = 0
        try:
            async with asyncio.timeout(DISCARD_SECONDS_MAX):
                async for chunk in self.chunks():
                    size += len(chunk)
                    if size > DISCARD_BYTES_MAX:
                        return False
        except (TimeoutError, SlowSenderError, ClientGoneError):
            return False
        return True


def _digits(text: str) -> str:
    if not _DIGITS.fullmatch(text):
        raise MalformedError("Content-Length is not a number")
    return text
