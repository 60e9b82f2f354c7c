"""A lane for the hot routes inside uvicorn's HTTP protocol, before ASGI.

A hot request poses as uvicorn's own request cycle (`self.cycle`), so that the order of pipelined
requests, graceful shutdown and disconnects stay uvicorn's. Two things are done later than uvicorn
does them, for each took a fifth of the time of a remembered read: what only ASGI needs of a request
is made when it goes there, and a connection has one timer that asks how long it has been idle
instead of a new one with every answer. Anything unusual takes the ordinary path: a request that
waits behind another, chunked or large bodies, `Expect`, `Upgrade`, `Connection`, HTTP/1.0, a client
that reads slowly.

Measured with a spike of the same form (2 cores, all stores on them): accept 1.4 and 2.5 times what
plain ASGI dispatch takes at 64 and 256 connections, reads 2.5 times.

Invariant: uvicorn is pinned; the private names of it that are used here are listed in
`PRIVATE_NAMES`, and `tests/contract/test_fast_lane.py` is the gate of its upgrade.
"""

import asyncio
import time
from http import HTTPStatus
from typing import Any

from polyglot_persistence.api.endpoint import HEADERS_MAX
from polyglot_persistence.api.hot import HotRequest, HotRoutes, Pending, failed
from polyglot_persistence.api.measuring import observe_request
from polyglot_persistence.api.orders import HIT_HEADERS, MISS_HEADERS
from polyglot_persistence.api.replies import JSON_HEADERS, Headers, Reply
from polyglot_persistence.api.server import GuardedProtocol
from polyglot_persistence.telemetry import logger

_log = logger("api")

PRIVATE_NAMES = (
    "client", "cycle", "expect_100_continue", "flow", "headers", "on_response_complete", "parser",
    "pipeline", "server_state", "timeout_keep_alive", "timeout_keep_alive_task", "url",
)  # fmt: skip

PIPELINE_MAX = 256
"""Requests that may wait behind one another; uvicorn itself knows no bound."""

# A request with one of these headers is not plain. `connection: keep-alive` is HTTP/1.1's default.
_NOT_PLAIN = frozenset(
    {
        b"connection",
        b"expect",
        b"idempotency-key",
        b"origin",
        b"prefer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class _NobodyWaits:
    """Stands in for the event with which uvicorn wakes an ASGI task; here is none."""

    def set(self) -> None: ...


class HotCycle:
    """What uvicorn's protocol touches of a request that is under way.

    No `__slots__`: a release of uvicorn may set another attribute, and then a request that is
    committed would stay unanswered.
    """

    message_event = _NobodyWaits()

    def __init__(
        self, protocol: "FastLaneProtocol", request: HotRequest, method: str, more: Headers
    ) -> None:
        self.body = b""
        self.more_body = True
        self.keep_alive = True
        self.response_complete = False
        self.disconnected = False
        self._protocol = protocol
        self._request = request
        self._method = method
        self._more = more
        self._started = 0.0
        self._pending: Pending | None = None

    def start(self) -> None:
        """Answer, now that the body is there."""
        self._started = time.perf_counter()
        self._take(self._request.answer(bytes(self.body)))

    def _take(self, answer: Reply | Pending) -> None:
        if isinstance(answer, Pending):
            self._pending = answer
            answer.done.add_done_callback(self._finish)
        else:
            self._reply(answer)

    def _finish(self, done: "asyncio.Future[Any]") -> None:
        assert self._pending is not None  # noqa: S101  it called us
        try:
            answer = self._pending.render(done)
        except Exception as error:  # noqa: BLE001  the last place that can answer the client
            answer = failed(error, self._request.route, self._request.route)
        self._take(answer)

    def _reply(self, reply: Reply) -> None:
        protocol, transport = self._protocol, self._protocol.transport
        self.response_complete = True
        status, headers, body = reply
        if self._more:
            headers = (*headers, *self._more)
        if not transport.is_closing():
            transport.write(
                b"%b%b%bContent-Length: %d\r\n%b\r\n%b"
                % (
                    _STATUS_LINES[status],
                    protocol.rendered_default_headers(),
                    _lines(headers),
                    len(body),
                    b"" if self.keep_alive else b"Connection: close\r\n",
                    body,
                )
            )
            if not self.keep_alive:
                transport.close()
            protocol.hot_answered()
        seconds = time.perf_counter() - self._started
        observe_request(self._method, self._request.route, status, seconds)


class FastLaneProtocol(GuardedProtocol):
    """One connection. Use the class that `fast_lane` returns, which knows its routes."""

    hot: HotRoutes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._idle_since = 0.0
        self._idle_watch: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self._idle_watch is not None:
            self._idle_watch.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins. What only ASGI needs of it is made once it is known to go there."""
        self.head_begins()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        if len(self.pipeline) > PIPELINE_MAX:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """The head is there: choose the lane."""
        cycle = self.cycle
        # There is none before the first request, whatever uvicorn's annotation says.
        idle = cycle is None or cycle.response_complete  # type: ignore[redundant-expr]
        if idle and not self.flow.write_paused:
            method = self.parser.get_method()
            request = self.hot.match(method, self.url)
            if request is not None and self._is_plain(method):
                more = self.hot.admit(request, self.headers, self.client[0] if self.client else "")
                if more is not None:
                    self.head_is_complete()
                    self.cycle = HotCycle(self, request, method.decode(), more)  # type: ignore[assignment]
                    return
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect_100_continue
        self.headers += headers  # the scope holds this very list
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there, too."""
        super().on_message_complete()
        cycle = self.cycle
        if isinstance(cycle, HotCycle) and not cycle.response_complete:
            cycle.start()

    def hot_answered(self) -> None:
        """Go on as after any answer; a timer a connection keeps it alive, and not one an answer."""
        if self.pipeline or self.flow.read_paused or self.transport.is_closing():
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self._idle_watch is None:
            self._watch_idle(self.timeout_keep_alive)

    def _watch_idle(self, seconds: float) -> None:
        self._idle_watch = self.loop.call_later(seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._idle_watch = None
        if self.in_head or not self.cycle.response_complete or self.timeout_keep_alive_task:
            return  # in use; the next answer watches again, or uvicorn does since the last one
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch_idle(left)
        else:
            self.transport.close()

    def rendered_default_headers(self) -> bytes:
        """Return uvicorn's own headers (the date), which it renews every second."""
        return _rendered(self.server_state.default_headers)

    def _is_plain(self, method: bytes) -> bool:
        if len(self.headers) > HEADERS_MAX:
            return False
        length: bytes | None = None
        is_json = False
        for name, value in self.headers:
            if name in _NOT_PLAIN and not (
                name == b"connection" and value.lower() == b"keep-alive"
            ):
                return False
            if name == b"content-length":
                length = value
            elif name == b"content-type":
                is_json = value == b"application/json"
        if self.parser.get_http_version() != "1.1":
            return False
        if method == b"GET":
            return length is None
        return (
            is_json
            and length is not None
            and length.isdigit()
            and int(length) <= self.hot.body_bytes_max
        )


def fast_lane(routes: HotRoutes) -> type[FastLaneProtocol]:
    """Return the protocol class for a server whose hot routes these are."""
    return type("FastLaneProtocol", (FastLaneProtocol,), {"hot": routes})


def _lines(headers: Headers) -> bytes:
    rendered = _RENDERED.get(id(headers))  # no other object has the id of one that is kept for ever
    if rendered is not None:
        return rendered
    if headers[: len(JSON_HEADERS)] == JSON_HEADERS:
        return _JSON_LINES + _each_line(headers[len(JSON_HEADERS) :])
    return _each_line(headers)


def _each_line(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % (_shown(name), value) for name, value in headers])


_last_rendered: tuple[Headers, bytes] = ((), b"")


def _rendered(headers: Headers) -> bytes:
    global _last_rendered  # noqa: PLW0603  one value, replaced whole, in one thread
    if _last_rendered[0] is not headers:
        _last_rendered = (headers, _lines(headers))
    return _last_rendered[1]


_names: dict[bytes, bytes] = {}


def _shown(name: bytes) -> bytes:
    """Return a header's name as the Go peer writes it, for people who grep for `X-Cache`."""
    shown = _names.get(name)
    if shown is None:
        shown = _names[name] = name.title()
    return shown


_JSON_LINES = _each_line(JSON_HEADERS)
_RENDERED = {id(headers): _each_line(headers) for headers in (HIT_HEADERS, MISS_HEADERS)}
