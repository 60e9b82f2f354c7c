"""The duration of every request, by route template and status.

Invariant: the labels are bounded: templates, not paths; known methods and statuses only.
"""

from polyglot_persistence.telemetry import HTTP_REQUEST_SECONDS

NO_ROUTE_LABEL = ""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """Return the method, or `_OTHER` for one that HTTP does not know."""
    return method if method in _METHODS else "_OTHER"


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request."""
    HTTP_REQUEST_SECONDS.observe((method_label(method), route, status), seconds)
