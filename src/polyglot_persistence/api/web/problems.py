"""Errors as RFC 9457 problems: one table maps errors to statuses.

Invariant: problems reveal no internals, neither of unexpected errors nor of stores; the log has
them.
Invariant: 503 means refused: the request that it answers stored nothing. 504 means that it cannot
be known. Neither speaks of another request, also not of an earlier one with the same key.
"""

from typing import Any, NamedTuple, Self

import msgspec

from polyglot_persistence import tracing
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, Reply, encode_json
from polyglot_persistence.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    MisdirectedError,
    NotFoundError,
    TooLargeError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
    UnknownOutcomeError,
    UnsupportedMediaError,
    Violation,
)

VIOLATIONS_MAX = 100
"""Maximum of broken rules in an answer: enough to fix a request, bounded for a hostile one."""


class Kind(NamedTuple):
    """A kind of problem: its status, the fragment of its `type`, its title and what it means."""

    status: int
    name: str
    title: str
    meaning: str


MALFORMED = Kind(
    400,
    "malformed",
    "The request cannot be read",
    "The body is not valid JSON, or a path, query parameter or header is invalid. Nothing was "
    "stored.",
)
UNAUTHENTICATED = Kind(
    401,
    "unauthenticated",
    "This needs a valid API key",
    "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Nothing was stored.",
)
FORBIDDEN = Kind(
    403,
    "forbidden",
    "The client lacks permission",
    "The API key lacks the scope, or a browser sent the request from a page of another origin. "
    "Nothing was stored.",
)
NOT_FOUND = Kind(
    404,
    "not-found",
    "The order or dead letter does not exist",
    "Certain: no acknowledged order is answered with this, unless an operator discarded it. A dead "
    "letter that was replayed or discarded no longer exists.",
)
NO_ROUTE = Kind(404, "no-route", "The route does not exist", "See the API's description.")
WRONG_METHOD = Kind(
    405,
    "method-not-allowed",
    "The route does not take this method",
    "The `Allow` header lists the methods that it takes.",
)
TOO_SLOW = Kind(
    408,
    "too-slow",
    "The request's body arrived too slowly",
    "Nothing was stored, except the lines of an import that the answer counts as accepted.",
)
TOO_LARGE = Kind(413, "too-large", "The body is over the limit", "Nothing was stored.")
UNSUPPORTED_MEDIA = Kind(
    415,
    "unsupported-media",
    "The route does not take this content type",
    "Send `application/json`, or `application/x-ndjson` to the import. Nothing was stored.",
)
MISDIRECTED = Kind(
    421,
    "misdirected",
    "The request is for another host",
    "The server does not answer for the host in the request (`ALLOWED_HOSTS`). Nothing was stored.",
)
INVALID = Kind(
    422,
    "invalid",
    "The request breaks a rule",
    "`errors` names each field by a JSON pointer, with the rule. Nothing was stored.",
)
CONFLICT = Kind(
    422,
    "conflict",
    "The key or id stands for an order with other content",
    "The first order with an idempotency key or id stays as it is; use a new one for another. "
    "Nothing was stored.",
)
LINES_REJECTED = Kind(
    422,
    "lines-rejected",
    "Lines of the import were rejected",
    "`lines_rejected` names them, each with its rule. Lines counted as accepted are stored. "
    "Correct the others and send only them, or the whole body again if it has a key.",
)
HEAD_TOO_LARGE = Kind(
    431, "head-too-large", "The request's headers are over the limit", "Nothing was stored."
)
TOO_MANY_REQUESTS = Kind(
    429,
    "quota-exceeded",
    "The client exceeded its rate",
    "Refused: this request stored nothing and never will. Retry after `Retry-After` seconds.",
)
INTERNAL = Kind(
    500,
    "internal",
    "The server failed",
    "An unexpected error; see the server's log. Retry with the same idempotency key.",
)
UNAVAILABLE = Kind(
    503,
    "unavailable",
    "Temporarily unavailable",
    "Refused: this request stored nothing and never will, except what the answer counts as done. "
    "Retry after `Retry-After` seconds. An earlier attempt that was answered 504, or not at all, "
    "may still be stored: retry with its idempotency key.",
)
UNKNOWN_OUTCOME = Kind(
    504,
    "unknown-outcome",
    "The outcome is unknown",
    "The order may have been stored. A retry with the same idempotency key is safe; without a "
    "key it may create a second order.",
)

KINDS = tuple(one for one in list(globals().values()) if isinstance(one, Kind))
"""All kinds, in the order of their definition."""

_KIND_OF: dict[type[BaseException], Kind] = {
    MalformedError: MALFORMED,
    MisdirectedError: MISDIRECTED,
    InvalidError: INVALID,
    ConflictError: CONFLICT,
    NotFoundError: NOT_FOUND,
    TooLargeError: TOO_LARGE,
    UnsupportedMediaError: UNSUPPORTED_MEDIA,
    UnauthenticatedError: UNAUTHENTICATED,
    ForbiddenError: FORBIDDEN,
    TooManyRequestsError: TOO_MANY_REQUESTS,
    UnavailableError: UNAVAILABLE,
    UnknownOutcomeError: UNKNOWN_OUTCOME,
}


class ProblemViolation(msgspec.Struct, frozen=True):
    """One broken rule: the field as a JSON pointer (RFC 6901), and the rule."""

    detail: str
    pointer: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem (RFC 9457). `type` is a reference into this API's page of problems."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    """The path of the request."""
    errors: list[ProblemViolation] = []
    errors_truncated: bool = False
    """Whether `errors` leaves out broken rules."""
    trace_id: str = ""
    """Trace id of the request, if it is traced."""

    @classmethod
    def of(cls, kind: Kind, detail: str, instance: str, **more: Any) -> Self:
        """Return a problem of a kind; `more` are fields of subclasses."""
        about = type_uri(kind), kind.title, kind.status, detail, instance
        return cls(*about, trace_id=tracing.trace_id(), **more)

    def reply(self, headers: Headers = ()) -> Reply:
        """Return the answer that carries the problem."""
        return self.status, (*PROBLEM_HEADERS, *headers), encode_json(self)


PROBLEM_HEADERS: Headers = ((b"content-type", b"application/problem+json"), *COMMON_HEADERS)


def kind_of(error: BaseException) -> Kind:
    """Return the kind of problem for an error; `INTERNAL` if it is unexpected."""
    for cls in type(error).__mro__:
        if kind := _KIND_OF.get(cls):
            return kind
    return INTERNAL


def type_uri(kind: Kind) -> str:
    """Return the problem's `type`: a relative reference, resolved against the request's URI."""
    return f"/problems#{kind.name}"


def problem(kind: Kind, detail: str, instance: str, headers: Headers = ()) -> Reply:
    """Return the answer for a problem of a kind."""
    return Problem.of(kind, detail, instance).reply(headers)


def problem_reply(error: BaseException, instance: str) -> Reply:
    """Return the problem for an error. The caller logs unexpected ones (`is_unexpected`)."""
    kind = kind_of(error)
    if isinstance(error, InvalidError):
        listed = [ProblemViolation(v.detail, v.pointer) for v in error.violations[:VIOLATIONS_MAX]]
        is_more = len(error.violations) > VIOLATIONS_MAX
        detail = _summary(error.violations)
        body = Problem.of(kind, detail, instance, errors=listed, errors_truncated=is_more)
        return body.reply()
    return problem(kind, detail_of(error), instance, error_headers(error))


def detail_of(error: BaseException) -> str:
    """Return the public text of an error, without addresses or words of stores and drivers."""
    kind = kind_of(error)
    if isinstance(error, UnavailableError):
        return (
            error.public or "a store that this request needs does not answer; see the server's log"
        )
    if kind in (INTERNAL, UNKNOWN_OUTCOME):
        return kind.meaning
    return str(error)


def error_headers(error: BaseException) -> Headers:
    """Return the headers of an error's answer: when to retry, or how to authenticate."""
    if isinstance(error, UnavailableError):
        return ((b"retry-after", b"%d" % error.retry_after_seconds),)
    if isinstance(error, TooManyRequestsError):
        return ((b"retry-after", b"%d" % error.retry_after_seconds), *error.headers)
    if isinstance(error, UnauthenticatedError):
        return ((b"www-authenticate", _challenge(error.code)),)
    if isinstance(error, ForbiddenError) and error.scope:
        return ((b"www-authenticate", _challenge("insufficient_scope", error.scope)),)
    return ()


def _challenge(code: str, scope: str = "") -> bytes:
    """Return the challenge of RFC 6750, section 3."""
    parts = ['Bearer realm="polyglot-persistence"']
    parts += [f'error="{code}"'] if code else []
    parts += [f'scope="{scope}"'] if scope else []
    return ", ".join(parts).encode()


def is_unexpected(error: BaseException) -> bool:
    """Whether the error is the server's fault and belongs in the log."""
    return kind_of(error) is INTERNAL


def _summary(violations: tuple[Violation, ...]) -> str:
    first = violations[0]
    more = " (and more)" if len(violations) > 1 else ""
    return f"{first.pointer or 'the body'} {first.detail}{more}"
