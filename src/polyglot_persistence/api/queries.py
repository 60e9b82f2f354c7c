"""Values in query strings."""

from datetime import UTC, datetime

import msgspec
from starlette.requests import Request

from polyglot_persistence.api.schemas import Moment
from polyglot_persistence.errors import MalformedError

_DIGITS_MAX = 13


def parse_count(
    request: Request, name: str, *, otherwise: int, cap: int | None = None, maximum: int = 0
) -> int:
    """Return a query parameter that counts something, at least 1.

    One over `cap` is taken as `cap`; without a cap, one over `maximum` is refused.

    Raises:
        MalformedError: it is no such number.
    """
    text = request.query_params.get(name)
    if text is None:
        return otherwise
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit()) or not digits:
        raise MalformedError(f"the query parameter {name} must be a whole number, 1 or more")
    if cap is not None:
        return cap if len(digits) > _DIGITS_MAX else min(int(digits), cap)
    if len(digits) > _DIGITS_MAX or int(digits) > maximum:
        raise MalformedError(f"the query parameter {name} may be {maximum} at most")
    return int(digits)


def parse_flag(request: Request, name: str) -> bool:
    """Return whether a query parameter is `true`; absent it is false.

    Raises:
        MalformedError: it is neither `true` nor `false`.
    """
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise MalformedError(f"the query parameter {name} must be true or false")
    return text == "true"


def parse_moment(request: Request, name: str) -> datetime | None:
    """Return a query parameter that is a moment, in UTC; None if it is absent.

    Raises:
        MalformedError: it is none, or has no UTC (the calendar's first and last days may not).
    """
    try:
        moment = msgspec.convert(request.query_params.get(name), Moment | None)
        return None if moment is None else moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise MalformedError(
            f"the query parameter {name} must be a moment in RFC 3339 form with a time zone"
        ) from None
