"""A lane for the hot routes inside the connection, before ASGI.

A request in this lane needs no task, scope or routing, which together cost several times what the
route costs. The connection below is the same for both lanes: parsing, limits, deadlines, the order
of answers. All unusual requests use the framework: chunked or large bodies, `Expect`, `Upgrade`,
`Connection`, HTTP/1.0, content codings, a path prefix.

Measured with a spike of the same form (2 cores, all stores on them): accept 1.4 and 2.5 times what
plain ASGI dispatch takes at 64 and 256 connections, reads 2.5 times.
"""

import asyncio
import time
from typing import Any

from polyglot_persistence.api.protocol.connection import Connection
from polyglot_persistence.api.protocol.exchange import Exchange
from polyglot_persistence.api.protocol.heads import Head
from polyglot_persistence.api.protocol.hot import HotRequest, HotRoutes, Pending, failed
from polyglot_persistence.api.protocol.rendering import CLOSE_LINE, STATUS_LINES, lines
from polyglot_persistence.api.web.bodies import body_problem
from polyglot_persistence.api.web.measuring import observe_request
from polyglot_persistence.api.web.replies import Headers, Reply
from polyglot_persistence.errors import PolyglotError


class HotExchange:
    """A request that the fast lane answers.

    The defaults are the class's, so that making one costs next to nothing.
    """

    unread_bytes = 0  # a body that is taken here is small enough to be kept
    keep_alive = True
    _body = b""
    _is_complete = False
    _is_lost = False
    _started = 0.0
    _pending: Pending | None = None

    def __init__(
        self, connection: "FastLaneConnection", request: HotRequest, method: str, more: Headers
    ) -> None:
        self._connection = connection
        self._request = request
        self._method = method
        self._more = more
        self._revision = connection.hot.access.revision

    def body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._body = self._body + data if self._body else data

    def body_complete(self) -> None:
        """Answer."""
        self._is_complete = True
        self._started = time.perf_counter()
        body, self._body = self._body, b""
        hot = self._connection.hot
        if self._revision != hot.access.revision:  # it came slowly
            headers = self._connection.head.headers
            if refusal := hot.check_again(self._request, headers, self._revision):
                self._reply(refusal)
                return
        self._take(self._request.answer(body))

    def body_failed(self, error: PolyglotError) -> None:
        """Answer as the framework's handler does while it waits for the body."""
        self.keep_alive = False
        self._started = time.perf_counter()
        self._reply(body_problem(error, self._request.route))

    def no_more(self) -> None:
        """Close the connection if the body ended too early."""
        if not self._is_complete:
            self._connection.hang_up()

    def lost(self) -> None:
        """Stop writing; an order that is being committed is still committed."""
        self._is_lost = True

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
        status, headers, body = reply
        if self._more:
            headers = (*headers, *self._more)
        if not self._is_lost:
            connection = self._connection
            connection.transport.write(
                b"%b%b%bContent-Length: %d\r\n%b\r\n%b"
                % (
                    STATUS_LINES[status],
                    connection.default_lines(),
                    lines(headers),
                    len(body),
                    b"" if self.keep_alive else CLOSE_LINE,
                    body,
                )
            )
            connection.answered()
        seconds = time.perf_counter() - self._started
        observe_request(self._method, self._request.route, status, seconds)


class FastLaneConnection(Connection):
    """One connection. Use the class that `fast_lane` returns, which has its routes."""

    hot: HotRoutes
    _known_host = b""
    """The last host of this connection that passed the check."""

    def exchange_of(self, method: bytes, head: Head) -> Exchange:
        """Return the exchange in the lane that fits the request."""
        request = self.hot.match(method, self.head.target)
        if request is not None and self._is_hot(method, head):
            more = self.hot.admit(request, head, self.head.headers, self.remote)
            if more is not None:
                return HotExchange(self, request, method.decode(), more)
        return super().exchange_of(method, head)

    def _is_hot(self, method: bytes, head: Head) -> bool:
        if not head.is_plain:
            return False
        if head.host != self._known_host:
            if not self.shared.front.knows_host(head.host, self.remote.own_address[0]):
                return False
            self._known_host = head.host
        if method == b"GET":
            return head.length is None
        return (
            head.content_type == b"application/json"
            and head.length is not None
            and head.length <= self.hot.body_bytes_max
        )


def fast_lane(routes: HotRoutes) -> type[FastLaneConnection]:
    """Return the connection class of a server with these hot routes."""
    return type("FastLaneConnection", (FastLaneConnection,), {"hot": routes})
