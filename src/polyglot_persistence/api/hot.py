"""The two hot routes, POST one order and GET one order, dispatched before the framework.

Routing, request and response objects of the framework cost more than these routes themselves
(measured: docs/architecture.md). A request that is not plain (another content type, an
idempotency key, a preference, a body in parts) goes on to the framework's handler of the same
route, which is made of the same functions.

Invariant: for whatever is answered here, the framework's handler would give the same answer.
"""

import time
from collections.abc import Awaitable, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polyglot_persistence.api.measuring import observe_request
from polyglot_persistence.api.orders import accepted_reply, parse_order_id, read_reply
from polyglot_persistence.api.problems import is_unexpected, problem_reply
from polyglot_persistence.api.replies import Reply
from polyglot_persistence.api.requests import parse_order
from polyglot_persistence.flows.accept import AcceptFlow
from polyglot_persistence.flows.read import ReadFlow
from polyglot_persistence.telemetry import logger

_log = logger("api")

CREATE_PATH = "/api/orders"
READ_PREFIX = "/api/orders/"
READ_ROUTE = "/api/orders/{id}"
_ID_CHARACTERS = 36
_READ_LENGTH = len(READ_PREFIX) + _ID_CHARACTERS
_LAST_SLASH = len(READ_PREFIX) - 1

_NOT_PLAIN = frozenset({b"idempotency-key", b"prefer", b"expect", b"transfer-encoding"})


class HotRoutes:
    """An ASGI application in front of another."""

    def __init__(
        self, app: ASGIApp, accept: AcceptFlow, reads: ReadFlow, *, body_bytes_max: int
    ) -> None:
        self._app = app
        self._accept = accept
        self._reads = reads
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request here if it is a plain one of a hot route."""
        method, path = scope.get("method"), scope.get("path", "")
        if method == "POST" and path == CREATE_PATH and self._is_plain(scope["headers"]):
            message = await receive()
            if message.get("more_body"):
                receive = _again(message, receive)
            elif message["type"] == "http.request":
                await self._carry(scope, send, CREATE_PATH, self.create(message["body"]))
                return
        elif (
            method == "GET"
            and len(path) == _READ_LENGTH
            and path.rfind("/") == _LAST_SLASH
            and path.startswith(READ_PREFIX)
        ):
            await self._carry(scope, send, READ_ROUTE, self.read(path))
            return
        await self._app(scope, receive, send)

    async def create(self, body: bytes) -> Reply:
        """Accept one order."""
        name, amount = parse_order(body)
        order_id, accepted = self._accept.accept_new(name, amount)
        await accepted
        return accepted_reply(order_id)

    async def read(self, path: str) -> Reply:
        """Return one order."""
        return read_reply(await self._reads.get(parse_order_id(path[len(READ_PREFIX) :])))

    def _is_plain(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        length = json = False
        for name, value in headers:
            if name in _NOT_PLAIN:
                return False
            if name == b"content-length":
                length = value.isdigit() and int(value) <= self._body_bytes_max
            elif name == b"content-type":
                json = value == b"application/json"
        return length and json

    async def _carry(self, scope: Scope, send: Send, route: str, answer: Awaitable[Reply]) -> None:
        started = time.perf_counter()
        try:
            status, headers, body = await answer
        except Exception as error:  # noqa: BLE001  the last place that can answer the client
            if is_unexpected(error):
                _log.error("request_failed", method=scope["method"], route=route, exc_info=error)
            status, headers, body = problem_reply(error, scope["path"])
        start: dict[str, Any] = {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})
        observe_request(scope["method"], route, status, time.perf_counter() - started)


def _again(first: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives the message that was taken out once more."""
    taken: list[Message] = [first]

    async def again() -> Message:
        return taken.pop() if taken else await receive()

    return again
