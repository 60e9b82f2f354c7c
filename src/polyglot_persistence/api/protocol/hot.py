"""The two hot routes, POST one order and GET one order, as functions of bytes.

The framework's routing, request and response cost several times what these routes themselves cost.
So `fast_lane` answers plain requests for them with the functions here. All other requests (another
content type, an idempotency key, a preference, a query, a client without permission) go to the
framework's handler of the same route, which uses the same functions.

Invariant: no server or framework is used here.
Invariant: the framework's handler would give the same answer to each request answered here.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from polyglot_persistence.api.orders.replies import accepted_reply, hit_reply, read_reply
from polyglot_persistence.api.orders.requests import parse_order, parse_order_id
from polyglot_persistence.api.protocol.heads import Head
from polyglot_persistence.api.protocol.remote import Remote
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.problems import is_unexpected, problem_reply
from polyglot_persistence.api.web.replies import Headers, Reply
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.intake.accept import AcceptFlow
from polyglot_persistence.flows.reading.read import Read, ReadFlow
from polyglot_persistence.telemetry import logger

_log = logger("api")

CREATE_ROUTE = "/api/orders"
READ_ROUTE = "/api/orders/{id}"

_CREATE_TARGET = b"/api/orders"
_READ_PREFIX = b"/api/orders/"
_READ_BYTES = len(_READ_PREFIX) + 36
_PARTS = re.compile(rb"[/?#%]")


class Pending(NamedTuple):
    """An answer that is not ready yet."""

    done: "asyncio.Future[Any]"
    render: "Callable[[asyncio.Future[Any]], Reply | Pending]"
    """Turns the finished future into the reply, or into the next pending answer."""


class HotRequest(NamedTuple):
    """A request for a hot route: its template, and its handler for the complete body."""

    route: str
    scope: Scope
    answer: Callable[[bytes], Reply | Pending]


class HotRoutes:
    """The two routes; larger bodies than `body_bytes_max` go to the framework."""

    def __init__(
        self, accept: AcceptFlow, reads: ReadFlow, *, body_bytes_max: int, access: Access
    ) -> None:
        self.access = access
        self._accept = accept
        self._reads = reads
        self.body_bytes_max = body_bytes_max
        self._create = HotRequest(CREATE_ROUTE, Scope.WRITE, self.create)

    def match(self, method: bytes, target: bytes) -> HotRequest | None:
        """Return the hot request for a request line that matches a hot route exactly."""
        if method == b"POST":
            return self._create if target == _CREATE_TARGET else None
        if method == b"GET" and len(target) == _READ_BYTES and target.startswith(_READ_PREFIX):
            id_text = target[len(_READ_PREFIX) :]
            # First, because only ids in canonical form are remembered: nothing needs a check.
            recent = self._reads.recent(id_text)
            if recent is not None:
                return HotRequest(READ_ROUTE, Scope.READ, lambda _: hit_reply(recent))
            # These characters would make it another route, or an invalid target.
            if not _PARTS.search(id_text):
                read = partial(self.read, id_text.decode("latin-1"))
                return HotRequest(READ_ROUTE, Scope.READ, read)
        return None

    def admit(
        self, request: HotRequest, head: Head, headers: Headers, remote: Remote
    ) -> Headers | None:
        """Return headers for the answer, or None if the framework must refuse the request."""
        if self.access.unrestricted and not head.has_key:
            return ()
        address = remote.client[0] if remote.client else ""
        try:
            return self.access.admit(request.scope, headers, address).headers
        except PolyglotError:
            return None

    def check_again(self, request: HotRequest, headers: Headers, revision: int) -> Reply | None:
        """Return the refusal of a request whose key was revoked since a revision, if it was."""
        try:
            self.access.check_again(request.scope, headers, revision)
        except PolyglotError as error:
            return failed(error, request.route, request.route)
        return None

    def create(self, body: bytes) -> Reply | Pending:
        """Accept one order."""
        try:
            order_id, accepted = self._accept.accept_new(parse_order(body))
        except Exception as error:  # noqa: BLE001  the last place that can answer the client
            return failed(error, CREATE_ROUTE, CREATE_ROUTE)
        return Pending(accepted, partial(_accepted, order_id))

    def read(self, id_text: str, _body: bytes) -> Reply | Pending:
        """Return one order that is not in this process's memory."""
        try:
            order_id = parse_order_id(id_text)
        except Exception as error:  # noqa: BLE001  the last place that can answer the client
            return failed(error, READ_ROUTE, _path(id_text))
        look_up = self._reads.begin(order_id)
        if look_up is None:
            return _reading(self._reads.get(order_id), id_text)
        return Pending(look_up, partial(self._looked_up, order_id, id_text))

    def _looked_up(
        self, order_id: UUID, id_text: str, done: "asyncio.Future[Any]"
    ) -> Reply | Pending:
        read = self._reads.found(done)
        if read is not None:
            return read_reply(read)
        return _reading(self._reads.finish(order_id, done), id_text)


def failed(error: BaseException, route: str, path: str) -> Reply:
    """Return the problem for an error; log an unexpected one."""
    if is_unexpected(error):
        _log.error("request_failed", route=route, exc_info=error)
    return problem_reply(error, path)


def _accepted(order_id: UUID, done: "asyncio.Future[Any]") -> Reply:
    error = _error_of(done)
    return accepted_reply(order_id) if error is None else failed(error, CREATE_ROUTE, CREATE_ROUTE)


def _reading(read: Coroutine[Any, Any, Read], id_text: str) -> Pending:
    return Pending(asyncio.ensure_future(read), partial(_read, _path(id_text)))


def _path(id_text: str) -> str:
    return f"{CREATE_ROUTE}/{id_text}"


def _read(path: str, done: "asyncio.Future[Any]") -> Reply:
    error = _error_of(done)
    return read_reply(done.result()) if error is None else failed(error, READ_ROUTE, path)


def _error_of(done: "asyncio.Future[Any]") -> BaseException | None:
    return asyncio.CancelledError() if done.cancelled() else done.exception()
