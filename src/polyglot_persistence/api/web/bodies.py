"""Reads request bodies, bounded in bytes.

The connection below (`connection`) bounds the time, equally for every reader: it ends the wait with
a `SlowSenderError`.

Invariant: no body is held beyond its limit, however it announces itself.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request

from polyglot_persistence.api.web.problems import MALFORMED, TOO_SLOW, problem
from polyglot_persistence.api.web.replies import Reply
from polyglot_persistence.errors import MalformedError, PolyglotError, TooLargeError
from polyglot_persistence.runtime.until import until

DISCARD_BYTES_MAX = 2**20
DISCARD_SECONDS_MAX = 2.0

_DIGITS = re.compile(r"[0-9]+", re.ASCII)


class SlowSenderError(PolyglotError):
    """The body arrived too slowly (408)."""


class BrokenBodyError(SlowSenderError):
    """The framing is broken, so the end of the body cannot be found (400)."""


class ClientGoneError(PolyglotError):
    """The client hung up before its body was complete; there is nobody to answer."""


def body_problem(error: PolyglotError, path: str) -> Reply:
    """Return the answer to a body that did not arrive completely in time."""
    kind = MALFORMED if isinstance(error, BrokenBodyError) else TOO_SLOW
    return problem(kind, str(error), path)


class BodyReader:
    """Reads the body of one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        headers = request.headers
        self.complete = "content-length" not in headers and "transfer-encoding" not in headers
        """Whether the body has been read to its end."""
        self.check_again: Callable[[], None] = lambda: None
        """Raises if the client's permission was revoked since the request began."""
        self._release: Callable[[int], None] = request.scope.get(
            "polyglot.release", lambda _size: None
        )

    async def chunks(self, *stopping: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; a chunk must not be kept when the next one is requested.

        Ends early (`complete` is then false) once one of `stopping` is set.

        Raises:
            SlowSenderError: the body did not arrive in time, or its framing is broken.
            ClientGoneError: the client hung up.
        """
        async for chunk in self._chunks(*stopping):
            yield chunk
            self._release(len(chunk))

    async def _chunks(self, *stopping: asyncio.Event) -> AsyncIterator[bytes]:
        while not self.complete:
            message = await until(self._request.receive(), *stopping)
            if message is None:
                return
            if message["type"] != "http.request":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            self.complete = not message.get("more_body", False)
            if chunk:
                yield chunk

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body.

        Raises:
            TooLargeError: by its `Content-Length` already, or as it comes.
            UnauthenticatedError: the API key was revoked in the meantime.
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
        """Read on briefly after a refusal, and return whether the body ended.

        A client reads the answer only after it has sent its body, and a connection that is closed
        over unread bytes is reset, answer and all.
        """
        if self.complete:
            return True
        if self._request.headers.get("expect", "").lower() == "100-continue":
            return False  # it waits for a reply, which must not be "continue"
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
