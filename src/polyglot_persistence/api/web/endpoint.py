"""Runs the handlers of a path in ASGI: errors to problems, durations to metrics, replies to ASGI.

Invariant: every answer to a request that reached the application is a `Reply` or a `Stream`, also
after an unexpected failure; handlers never send.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from polyglot_persistence.api.web.access import Access, Admission
from polyglot_persistence.api.web.bodies import (
    BodyReader,
    ClientGoneError,
    SlowSenderError,
    body_problem,
)
from polyglot_persistence.api.web.measuring import NO_ROUTE_LABEL, observe_request
from polyglot_persistence.api.web.problems import (
    NO_ROUTE,
    UNSUPPORTED_MEDIA,
    WRONG_METHOD,
    is_unexpected,
    problem,
    problem_reply,
)
from polyglot_persistence.api.web.queries import check_query
from polyglot_persistence.api.web.replies import Headers, Reply
from polyglot_persistence.api.web.streams import Stream, send_stream
from polyglot_persistence.domain.access import Scope as AccessScope
from polyglot_persistence.errors import UnauthenticatedError
from polyglot_persistence.telemetry import logger

_log = logger("api")

Handler: TypeAlias = Callable[[Request, BodyReader], Awaitable[Reply | Stream]]

_GUARD = "polyglot.guard"
_CLIENT = "polyglot.client"
# RFC 9110, 15.5.16: a refusal of a content coding names the accepted ones.
_IDENTITY_ONLY: Headers = ((b"accept-encoding", b"identity"),)


def client_of(request: Request) -> str:
    """Return the name of the API key that a request came with; empty if it had none."""
    client: str = request.scope[_CLIENT]
    return client


def next_page(request: Request, cursor: str) -> str:
    """Return the path of the next page as clients see it: the same query with another cursor."""
    query = {"cursor": "", **request.query_params} | {"cursor": cursor}
    return f"{prefix_of(request)}{request.scope['path']}?{urlencode(query)}"


def prefix_of(request: Request) -> str:
    """Return the path below which a proxy publishes the API; usually empty."""
    prefix: str = request.scope.get("polyglot.prefix", "")
    return prefix


class Method(NamedTuple):
    """Scope, handler and query parameters of a method on a path."""

    scope: AccessScope
    handler: Handler
    parameters: Sequence[str] | None
    """Names of query parameters; None: any are accepted and ignored."""


class _Guard(NamedTuple):
    """The check that admitted a request."""

    access: Access
    needed: AccessScope

    @staticmethod
    def of(request: Request) -> "_Guard":
        guard: _Guard = request.scope[_GUARD]
        return guard


def may(request: Request, scope: AccessScope) -> bool:
    """Whether the client of a request also has this scope."""
    return _Guard.of(request).access.may(scope, request.scope["headers"])


def may_look_inside(request: Request) -> bool:
    """Whether the client of a request may see details of the service."""
    return may(request, AccessScope.ADMIN)


def until_revoked(request: Request) -> asyncio.Event:
    """Return an event that is set once the running request would no longer be admitted."""
    access, needed = _Guard.of(request)
    return access.until_revoked(needed, request.scope["headers"])


def _address(scope: Scope) -> str:
    client = scope.get("client")  # none over a Unix socket
    return client[0] if client else ""


class Endpoint:
    """One path: its template and its handlers by method. The handler of GET answers HEAD."""

    def __init__(self, path: str, handlers: Mapping[str, Method], access: Access) -> None:
        self._path = path
        self._access = access
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted(self._handlers)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request = Request(scope, receive)
        body = BodyReader(request)
        try:
            reply = await self._answer(request, body)
        except ClientGoneError:
            return
        if isinstance(reply, Stream):
            observe_request(scope["method"], self._path, 200, time.perf_counter() - started)
            await send_stream(scope, receive, send, reply)
            return
        await _send(scope, send, reply, keep_alive=await body.discard())
        observe_request(scope["method"], self._path, reply[0], time.perf_counter() - started)

    async def _answer(self, request: Request, body: BodyReader) -> Reply | Stream:
        path = request.scope["path"]
        found = self._handlers.get(request.method)
        if found is None:
            detail = f"{path} takes {self._allow.decode()}"
            return problem(WRONG_METHOD, detail, path, ((b"allow", self._allow),))
        coding = request.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            detail = f"the body must be sent without a content coding, not in {coding!r}"
            return problem(UNSUPPORTED_MEDIA, detail, path, _IDENTITY_ONLY)
        needed, handler, parameters = found
        more: Headers = ()
        reply: Reply | Stream
        request.scope[_GUARD] = _Guard(self._access, needed)
        try:
            client, more = self._admit(request, needed)
            request.scope[_CLIENT] = client
            body.check_again = partial(
                self._access.check_again, needed, request.scope["headers"], self._access.revision
            )
            if parameters is not None:
                check_query(request, parameters)
            reply = await handler(request, body)
        except ClientGoneError:
            raise
        except SlowSenderError as error:
            reply = body_problem(error, path)
        except Exception as error:  # noqa: BLE001  # the last place that can answer the client
            if is_unexpected(error):
                _log.error(
                    "request_failed", method=request.method, route=self._path, exc_info=error
                )
            reply = problem_reply(error, path)
        if not more:
            return reply
        if isinstance(reply, Stream):
            return reply._replace(headers=(*reply.headers, *more))
        status, headers, content = reply
        return status, (*headers, *more), content

    def _admit(self, request: Request, needed: AccessScope) -> Admission:
        scope = request.scope
        headers, address = scope["headers"], _address(scope)
        try:
            return self._access.admit(needed, headers, address)
        except UnauthenticatedError as error:
            self._access.failed(error, headers, address, self._path)
            raise


async def no_route(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose path matches no route."""
    if scope["type"] != "http":
        return
    path = scope["path"]
    reply = problem(NO_ROUTE, f"no route matches {path}; see /docs", path)
    await answer(scope, receive, send, reply)


async def answer(scope: Scope, receive: Receive, send: Send, reply: Reply) -> None:
    """Answer a request that reaches no route."""
    body = BodyReader(Request(scope, receive))
    await _send(scope, send, reply, keep_alive=await body.discard())
    observe_request(scope["method"], NO_ROUTE_LABEL, reply[0], 0.0)


async def _send(scope: Scope, send: Send, reply: Reply, *, keep_alive: bool) -> None:
    status, headers, body = reply
    sent = [*headers, (b"content-length", b"%d" % len(body))]
    if not keep_alive:
        sent.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
