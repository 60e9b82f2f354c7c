"""Carries one request and its answer between a connection and the ASGI application.

Invariant: an answer is written whole and in its place, or the connection ends with it.
"""

import asyncio
import re
from collections.abc import MutableMapping
from typing import Any, Protocol

from starlette.types import ASGIApp

from polyglot_persistence.api.protocol.heads import Head, Target
from polyglot_persistence.api.protocol.held_writes import HeldTransport
from polyglot_persistence.api.protocol.remote import Remote
from polyglot_persistence.api.protocol.rendering import CLOSE_LINE, CONTINUE, STATUS_LINES, lines
from polyglot_persistence.api.web.problems import INTERNAL, problem
from polyglot_persistence.api.web.replies import Headers
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.telemetry import logger

_log = logger("api")

_NOT_IN_A_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Carrier(Protocol):
    """The part of a connection that an exchange uses."""

    transport: HeldTransport

    def default_lines(self) -> bytes:
        """Return the lines of the default headers."""

    def wants_body(self) -> None:
        """Resume reading: the kept part of the body was handed over."""

    def handed_over(self, size: int) -> None:
        """Stop counting bytes of the body."""

    async def drained(self) -> None:
        """Wait until the client has read enough."""

    def answered(self) -> None:
        """Start the next request: the answer is complete."""

    def hang_up(self) -> None:
        """Close without an answer."""


class Exchange(Protocol):
    """A running request, in either lane; called by the connection."""

    keep_alive: bool
    """Whether the connection may carry another request after the answer."""
    unread_bytes: int
    """Bytes of the body that the handler has not taken yet."""

    def body(self, data: bytes) -> None:
        """Receive a piece of the body."""

    def body_complete(self) -> None:
        """Answer: the request is complete."""

    def body_failed(self, error: PolyglotError) -> None:
        """Answer that the body can never be completed."""

    def no_more(self) -> None:
        """End work for the client, which sends nothing more."""

    def lost(self) -> None:
        """Stop writing: the connection is lost."""


def asgi_scope(
    method: bytes,
    head: Head,
    target: Target,
    headers: Headers,
    remote: Remote,
) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "server": remote.own_address,
        "client": remote.client,
        "scheme": remote.scheme or "http",
        "root_path": "",
        "headers": headers,
        "state": {},
        "method": method.decode("ascii"),
        "path": target.path,
        "raw_path": target.raw_path,
        "query_string": target.query,
        "polyglot.scheme": remote.scheme,
        "polyglot.prefix": remote.prefix,
    }


class AsgiExchange:
    """A request that the ASGI application answers."""

    def __init__(
        self,
        carrier: Carrier,
        scope: dict[str, Any],
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.keep_alive = keep_alive
        self.unread_bytes = 0
        self._carrier = carrier
        self._scope = scope
        self._may_chunk = scope["http_version"] != "1.0"
        self._owes_continue = expects_continue
        self._pieces: list[bytes] = []
        self._more = True
        self._all_handed_over = False
        self._error: PolyglotError | None = None
        self._is_gone = False
        self._is_lost = False
        self._event = asyncio.Event()
        self._started = False
        self._complete = False
        self._is_chunked = False
        self._left: int | None = None

    async def run(self, app: ASGIApp) -> None:
        """Run the application."""
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001  also if it is cancelled, at the end
            if not isinstance(error, asyncio.CancelledError):
                _log.error("request_failed", method=self._scope["method"], exc_info=error)
            await self._give_up()
        else:
            if not self._complete:
                await self._give_up()

    def body(self, data: bytes) -> None:
        """Keep a piece of the body until the application takes it."""
        if data:
            self._pieces.append(data)
            self.unread_bytes += len(data)
            self._event.set()

    def body_complete(self) -> None:
        """Hand over the end of the body with the next piece."""
        self._more = False
        self._event.set()

    def body_failed(self, error: PolyglotError) -> None:
        """Raise the error at each wait of the application for the body."""
        self._error = error
        self._pieces.clear()
        self._event.set()

    def no_more(self) -> None:
        """Report the lost client to the application, if it waits for input."""
        self._is_gone = True
        self._event.set()

    def lost(self) -> None:
        """Drop everything that is still written."""
        self._is_lost = True
        self.no_more()

    async def receive(self) -> MutableMapping[str, Any]:
        """Return a piece of the body, or that the client has gone.

        Raises:
            PolyglotError: the body can never be complete; each call raises it again.
        """
        while not self._complete:
            if self._error is not None:
                # A new one: its traceback holds this frame and the reader's, with a megabyte of a
                # body, which would wait for the collector if `_error` held them in turn.
                raise type(self._error)(str(self._error))
            if self._pieces or not (self._more or self._all_handed_over):
                body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces.clear()
                self.unread_bytes = 0
                self._all_handed_over = not self._more
                return {"type": "http.request", "body": body, "more_body": self._more}
            if self._is_gone:
                break
            if self._more:
                if self._owes_continue:
                    self._owes_continue = False
                    self._carrier.transport.write(CONTINUE)
                self._carrier.wants_body()
            self._event.clear()
            await self._event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Write a part of the answer."""
        await self._carrier.drained()
        if self._is_lost:
            return
        if message["type"] == "http.response.start" and not self._started:
            self._begin(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self._started and not self._complete:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"an answer has no {message['type']} at this place")

    def _begin(self, status: int, headers: Headers) -> None:
        self._started = True
        self._owes_continue = False
        says_close = False
        for name, value in headers:
            if _NOT_IN_A_VALUE.search(value):
                raise RuntimeError(f"the value of the header {name.decode()} has a line end in it")
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and value == b"close":
                says_close = True
                self.keep_alive = False
        head = [STATUS_LINES[status], self._carrier.default_lines(), lines(headers)]
        is_head = self._scope["method"] == "HEAD"
        if self._left is None and not is_head:
            self._is_chunked = self._may_chunk
            if self._is_chunked:
                head.append(b"Transfer-Encoding: chunked\r\n")
            else:  # the end of the connection is the end of the body
                self.keep_alive = False
        if not (self.keep_alive or says_close):
            head.append(CLOSE_LINE)
        if is_head:
            self._left = None
        self._carrier.transport.write(b"".join([*head, b"\r\n"]))

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self._scope["method"] == "HEAD":
            pass
        elif self._is_chunked:
            if body:
                self._carrier.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            if not more:
                self._carrier.transport.write(b"0\r\n\r\n")
        else:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (self._left and not more):
                    raise RuntimeError("the body of the answer has another length than it says")
            self._carrier.transport.write(body)
        if not more:
            self._complete = True
            self._event.set()
            self._carrier.answered()

    async def _give_up(self) -> None:
        """Answer 500, or close if an answer was started."""
        if self._is_lost or self._complete:
            return
        if self._started or self._is_gone:
            self._carrier.hang_up()
            return
        status, headers, body = problem(INTERNAL, INTERNAL.meaning, self._scope["path"])
        length = (b"content-length", b"%d" % len(body))
        self.keep_alive = False
        await self.send(
            {"type": "http.response.start", "status": status, "headers": [*headers, length]}
        )
        await self.send({"type": "http.response.body", "body": body})
