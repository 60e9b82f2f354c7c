"""The types of a route's published description: parameters, bodies and answers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from polyglot_persistence.api.web import problems as p
from polyglot_persistence.api.web.problems import Kind, Problem
from polyglot_persistence.api.web.queries import QueryParameter

JSON = "application/json"
NDJSON = "application/x-ndjson"
HTML = "text/html"
TEXT = "text/plain"

ORDER_ID = "0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04"
MOMENT = "2026-01-31T12:00:00Z"
"""Id and moment of the examples."""


class Parameter(NamedTuple):
    """A parameter in path or header."""

    name: str
    place: str
    description: str
    schema: dict[str, Any]
    required: bool = False


class Body(NamedTuple):
    """A request body: the type that defines its schema, an example, and the content type.

    A tuple of types means any of them.
    """

    type: Any
    example: Any
    media_type: str = JSON


class Answer(NamedTuple):
    """An answer that is not a problem."""

    description: str
    type: Any = None
    """Defines the schema of the body; None: text."""
    example: Any = None
    headers: tuple[str, ...] = ()
    media_type: str = JSON
    """Empty: no body."""
    also: str = ""
    """Another content type, for clients that prefer it."""
    status: int = 200


class Operation(NamedTuple):
    """The description of one route."""

    name: str
    tag: str
    summary: str
    description: str
    answer: Answer
    problems: tuple[Kind, ...] = ()
    parameters: Sequence[Parameter | QueryParameter[Any]] = ()
    request: Body | None = None
    problem_type: type[Problem] = Problem
    others: tuple[Answer, ...] = ()
    """Answers with another status, problems excluded."""


HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Location": ("Path of the order.", {"type": "string", "format": "uri-reference"}),
    "X-Cache": (
        "HIT if the order came from the cache, MISS if from PostgreSQL.",
        {"type": "string", "enum": ["HIT", "MISS"]},
    ),
    "Retry-After": ("Seconds to wait before a retry.", {"type": "integer", "minimum": 0}),
    "WWW-Authenticate": ("How to authenticate (RFC 6750).", {"type": "string"}),
    "RateLimit-Policy": ("The client's rate: `q` requests in `w` seconds.", {"type": "string"}),
    "RateLimit": (
        "Requests that the client has left now (`r`), and seconds until it has all again (`t`).",
        {"type": "string"},
    ),
    "Preference-Applied": ("The part of `Prefer` that was applied.", {"type": "string"}),
    "Idempotent-Replayed": (
        "Present if the order existed before.",
        {"type": "string", "enum": ["true"]},
    ),
    "X-As-Of": ("The moment for which the answer is exact.", {"type": "string"}),
    "Link": ('The next page, with rel="next".', {"type": "string"}),
    "ETag": ("Entity tag of the content.", {"type": "string"}),
}

BODY_PROBLEMS = (p.MALFORMED, p.TOO_SLOW, p.TOO_LARGE, p.UNSUPPORTED_MEDIA)
READ_PROBLEMS = (p.MALFORMED, p.UNAVAILABLE)
WRITE_PROBLEMS = (p.UNAVAILABLE, p.UNKNOWN_OUTCOME)
