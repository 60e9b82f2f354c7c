"""Values in query strings."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, tzinfo
from urllib.parse import parse_qsl

from starlette.requests import Request

from polyglot_persistence.errors import MalformedError

_DIGITS_MAX = 19
_COUNT_MAX = 2**63 - 1
"""As the description says (`int64`)."""
_SHOWN_MAX = 64

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_SHAPE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.,]+([Zz]|[+ -][0-9]{2}:?[0-9]{2})?)?", re.ASCII
)
_LOST_PLUS = re.compile(r"(:[0-9]{2}(?:[.,][0-9]+)?) ([0-9]{2}:?[0-9]{2})$", re.ASCII)


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
        if len(digits) > _DIGITS_MAX or int(digits) > _COUNT_MAX:
            raise MalformedError(f"the query parameter {name} must be an integer of 64 bits")
        return min(int(digits), cap)
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


def parse_moment(request: Request, name: str, zone: tzinfo | None = None) -> datetime | None:
    """Return a query parameter that is a moment or a date, in UTC; None if it is absent.

    A date is its beginning, in the zone or else in UTC. A moment without an offset is local in the
    zone, if there is one. In a query string a bare `+` is a space, so one before an offset counts
    as the `+` that was meant.

    Raises:
        MalformedError: it is none, or has no UTC (the calendar's first and last days may not).
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text.upper()))
        if moment.tzinfo is None and (zone is not None or _DATE.fullmatch(text)):
            moment = moment.replace(tzinfo=zone or UTC)
        if moment.tzinfo is not None and _SHAPE.fullmatch(text):
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    needs = "" if zone is not None else " with a time zone"
    raise MalformedError(
        f"the query parameter {name} must be a date, or a moment in RFC 3339 form{needs}; e.g. "
        "2026-01-31, 2026-01-31T12:00:00Z or 2026-01-31T14:00:00%2B02:00 (write + as %2B)"
    )


def check_query(request: Request, known: Collection[str]) -> None:
    """Refuse a parameter that the route does not know, and one that is there twice.

    What is misspelt would be left out in silence, and the answer be to another question.

    Raises:
        MalformedError: naming it, and those that there are.
    """
    query: bytes = request.scope["query_string"]
    if not query:
        return
    # One more than there are is unknown or there twice, so what follows need not be read.
    parts = [one for one in query.split(b"&") if one][: len(known) + 1]
    given: set[str] = set()
    for name, _ in parse_qsl(b"&".join(parts).decode("latin-1"), keep_blank_values=True):
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise MalformedError(f"the route has no query parameter {name[:_SHOWN_MAX]!r}; {takes}")
        if name in given:
            raise MalformedError(f"the query parameter {name} is given twice")
        given.add(name)
