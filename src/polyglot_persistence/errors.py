"""Every error of this project, by what the caller should do.

```
PolyglotError
├── RejectedError            the request is wrong; nothing was stored; do not retry as it is (4xx)
│   ├── MalformedError           it cannot be read (400)
│   ├── InvalidError             it breaks a rule; carries the violations (422)
│   ├── ConflictError            its id or key stands for other content (422)
│   ├── NotFoundError            certainly no such thing (404)
│   ├── TooLargeError            over a size limit (413)
│   ├── UnsupportedMediaError    a body of another type than the route takes (415)
│   ├── MisdirectedError         it is for another host than this server's (421)
│   ├── UnauthenticatedError     it needs a valid API key (401)
│   └── ForbiddenError           whoever asks may not do this (403)
├── TooManyRequestsError     the client is over its rate; nothing was done; retry later (429)
├── UnavailableError         refused: nothing was stored and nothing will be; retry later (503)
│   └── UnexplainedError         by a store, for no reason that is known: an order may be the cause
├── UnknownOutcomeError      it may have happened; a retry with the same key is safe (504)
├── PoisonError              an order that can never be persisted or indexed (dead letter)
└── ConfigurationError       a setting or the machine is at fault; one line says which (exit code 2)
```

Adapters translate their drivers' errors into these, by a table, with `from`.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """One broken rule: a JSON pointer (RFC 6901) to the field, and the rule in words."""

    pointer: str
    detail: str


class PolyglotError(Exception):
    """Root of the hierarchy; never raised itself."""


class RejectedError(PolyglotError):
    """The request is wrong and nothing was stored."""


class MalformedError(RejectedError):
    """The request cannot be read at all."""


class InvalidError(RejectedError):
    """The request can be read and breaks at least one rule."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__(
            "; ".join(f"{v.pointer}: {v.detail}".removeprefix(": ") for v in violations)
        )
        self.violations = violations


class ConflictError(RejectedError):
    """The id or idempotency key already stands for an order with other content."""


class NotFoundError(RejectedError):
    """There is no such thing, and that is certain."""


class TooLargeError(RejectedError):
    """The body is over the limit."""


class MisdirectedError(RejectedError):
    """The request is for a host that this server does not answer for."""


class UnsupportedMediaError(RejectedError):
    """The body's content type is not one that the route takes."""


class UnauthenticatedError(RejectedError):
    """The request needs a valid API key, and has none.

    `code` is the reason in RFC 6750's words (section 3.1); empty if there was no key at all.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ForbiddenError(RejectedError):
    """Whoever asks may not do this; `scope` is what its API key lacks, if it is that."""

    def __init__(self, message: str, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope


class TooManyRequestsError(PolyglotError):
    """The client is over its rate, and nothing was done; `headers` tell it where it stands."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: int,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers


class UnavailableError(PolyglotError):
    """Refused: nothing was stored and nothing will be. `retry_after_seconds` is a hint.

    The message is for logs and operators: it may name a store's address, or quote a driver. It is
    `reason`, and `remedy`, what an operator can do, if that is known. A client reads `public`, if
    there is one.
    """

    def __init__(
        self, message: str, *, public: str = "", remedy: str = "", retry_after_seconds: int = 1
    ) -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.reason = message
        self.public = public
        self.remedy = remedy
        self.retry_after_seconds = retry_after_seconds


class UnexplainedError(UnavailableError):
    """A store refused a statement, and neither its state nor the data is known to be the cause.

    So of a batch one order may be, as with a trigger that refuses it, or an index damaged in one
    place; then the others can be stored without it. Or none is, and the store takes no order.
    """


class UnknownOutcomeError(PolyglotError):
    """The effect may or may not have happened; only an idempotent retry resolves it.

    The message is for logs and operators, as that of `UnavailableError`.
    """


def refused(reason: str, *, retry_after_seconds: int = 1) -> UnavailableError:
    """Return the error of a call that is refused for a reason that clients may read."""
    return UnavailableError(reason, public=reason, retry_after_seconds=retry_after_seconds)


class PoisonError(PolyglotError):
    """This order, or one in this batch, can never be persisted or indexed."""


class ConfigurationError(PolyglotError):
    """A setting, a data directory or the machine is at fault; the message says what to do."""
