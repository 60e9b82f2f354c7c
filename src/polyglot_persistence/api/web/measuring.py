"""How a request is observed: its duration by route template and status, and its span.

Invariant: the labels are bounded: templates, not paths; known methods and statuses only.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polyglot_persistence import tracing
from polyglot_persistence.telemetry import HTTP_REQUEST_SECONDS

NO_ROUTE_LABEL = ""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SERVER_ERROR = 500


def _method_label(method: str) -> str:
    """Return the method, or `_OTHER` for an unknown one."""
    return method if method in _METHODS else "_OTHER"


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request."""
    HTTP_REQUEST_SECONDS.observe((_method_label(method), route, status), seconds)


class Traced:
    """An endpoint whose requests are spans, below the caller's if it sent a `traceparent`."""

    def __init__(self, path: str, endpoint: ASGIApp) -> None:
        self._path = path
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = _method_label(scope["method"])
        headers = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        attributes: dict[str, tracing.Value] = {
            "http.request.method": method,
            "http.route": self._path,
            "url.path": self._path,  # not as it was sent: that is a user's text
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        with tracing.server_span(f"{method} {self._path}", headers, attributes) as span:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status: int = message["status"]
                    span.set({"http.response.status_code": status})
                    if status >= _SERVER_ERROR:
                        span.failed(str(status))
                await send(message)

            await self._endpoint(scope, receive, watched)
