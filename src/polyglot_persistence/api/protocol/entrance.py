"""Checks host and origin of every request before routing.

It answers preflights (WHATWG Fetch, 4.8), and lets pages of trusted origins read every answer,
refusals included.
"""

from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from polyglot_persistence.api.protocol.front import Front, header
from polyglot_persistence.api.web.endpoint import answer
from polyglot_persistence.api.web.problems import problem_reply
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, Reply
from polyglot_persistence.errors import PolyglotError

_VARY: Headers = ((b"vary", b"origin"),)
_EXPOSED = (
    b"Idempotent-Replayed, Link, Location, Preference-Applied, RateLimit, RateLimit-Policy, "
    b"Retry-After, WWW-Authenticate, X-As-Of, X-Cache, X-Degraded"
)
_ALLOWED: Headers = (
    (b"access-control-allow-methods", b"GET, HEAD, POST"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-API-Key",
    ),
    (b"access-control-max-age", b"7200"),  # the longest time that browsers keep it
)


class Entrance:
    """An application behind the checks of its front."""

    def __init__(self, app: ASGIApp, front: Front) -> None:
        self._app = app
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it."""
        headers: Headers = scope["headers"]
        origin = header(headers, b"origin")
        if origin is not None and self._front.trusts_origin(origin):
            send = _readable(send, origin)
            if scope["method"] == "OPTIONS" and header(headers, b"access-control-request-method"):
                await answer(scope, receive, send, (200, (*COMMON_HEADERS, *_ALLOWED), b""))
                return
        if refusal := self._refusal(scope):
            await answer(scope, receive, send, refusal)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Reply | None:
        server = scope.get("server")
        try:
            self._front.check_host(scope["headers"], server[0] if server else "")
            self._front.check_origin(
                scope["method"], scope["headers"], scope.get("polyglot.scheme")
            )
        except PolyglotError as error:
            return problem_reply(error, scope["path"])
        return None


def _readable(send: Send, origin: bytes) -> Send:
    """Return a `send` that lets pages of the origin read the answer."""
    more: Headers = (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
        *_VARY,
    )

    async def send_readable(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return send_readable
