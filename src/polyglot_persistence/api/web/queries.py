"""Query strings: each parameter is declared once, for its parser and for its description.

    class PageParameters(QueryParameters):
        limit = count("Orders a page.", 50, cap=200)

`PageParameters(request).limit` is an `int`; OpenAPI publishes `PageParameters.described`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, Self, TypeVar, overload
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from starlette.requests import Request

from polyglot_persistence.errors import InvalidError, MalformedError, Violation

_Value = TypeVar("_Value")

_COUNT_MAX = 2**63 - 1
"""As the description says (`int64`)."""
_SHOWN_MAX = 64

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_SHAPE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.,]+([Zz]|[+ -][0-9]{2}:?[0-9]{2})?)?", re.ASCII
)
_LOST_PLUS = re.compile(r"(:[0-9]{2}(?:[.,][0-9]+)?) ([0-9]{2}:?[0-9]{2})$", re.ASCII)
_MOMENTS = "2026-01-31, 2026-01-31T12:00:00Z or 2026-01-31T14:00:00%2B02:00 (write + as %2B)"

TRUTHS = {"true": True, "false": False}
CURSOR_RULE = "must be the `next_cursor` of the page before, unchanged"
LOCAL_MOMENT_RULE = f"must be a date, or a moment in RFC 3339 form; e.g. {_MOMENTS}"


@dataclass
class QueryParameter(Generic[_Value]):
    """A query parameter: what is published about it, its parser, and the rule that errors state.

    `parse` raises any ValueError, LookupError or OverflowError for a text that breaks the rule. It
    parses the empty text if the parameter is required and absent.
    """

    description: str
    schema: dict[str, Any]
    parse: Callable[[str], _Value]
    otherwise: _Value
    rule: str = ""
    name: str = ""
    required: bool = False
    place: ClassVar = "query"

    def __set_name__(self, _owner: type, attribute: str) -> None:
        """Take the attribute's name, unless the parameter has another one."""
        self.name = self.name or attribute

    @overload
    def __get__(self, query: None, owner: type) -> Self: ...
    @overload
    def __get__(self, query: "QueryParameters", owner: type) -> _Value: ...
    def __get__(self, query: "QueryParameters | None", owner: type) -> Self | _Value:
        """Return the parameter's value in a parsed query."""
        return self if query is None else query.values[self.name]

    def read(self, text: str) -> _Value:
        """Return the value of a text.

        Raises:
            InvalidError: with the rule that the text breaks.
        """
        try:
            return self.parse(text)
        except (ValueError, LookupError, OverflowError):
            raise InvalidError(Violation(f"/{self.name}", self.rule)) from None


class QueryParameters:
    """The values of a route's query string; subclasses declare the parameters."""

    described: tuple[QueryParameter[Any], ...] = ()
    """The parameters of the class, then those of its bases."""

    def __init_subclass__(cls) -> None:
        """Collect the parameters."""
        members = [member for owner in cls.__mro__ for member in vars(owner).values()]
        cls.described = tuple(one for one in members if isinstance(one, QueryParameter))

    def __init__(self, request: Request) -> None:
        """Parse a request's query string.

        Raises:
            MalformedError: with each parameter that breaks a rule; if none does, with each broken
                rule between parameters.
        """
        self.values: dict[str, Any] = {}
        broken: list[str] = []
        for one in self.described:
            text = request.query_params.get(one.name)
            try:
                is_given = text is not None or one.required
                self.values[one.name] = one.read(text or "") if is_given else one.otherwise
            except InvalidError as error:
                broken.append(f"{one.name} {error.violations[0].detail}")
        if broken := broken or list(self.broken_rules()):
            raise MalformedError("; ".join(f"the query parameter {rule}" for rule in broken))

    def broken_rules(self) -> Iterable[str]:
        """Yield each broken rule between parameters, beginning with a parameter's name."""
        return ()


def count(
    description: str, otherwise: int, *, cap: int | None = None, maximum: int = _COUNT_MAX
) -> QueryParameter[int]:
    """Return a parameter that is a number from 1; it takes more than `cap` as `cap`."""
    schema: dict[str, Any] = {"type": "integer", "minimum": 1}
    if cap is None:
        schema["maximum"] = maximum
    else:
        description = f"{description[:-1]}; more than {cap} is taken as that."
    schema["default"] = otherwise

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= maximum):
            raise ValueError(text)
        return min(int(text), cap or maximum)

    rule = f"must be a whole number from 1 to {maximum}"
    return QueryParameter(description, schema, parse, otherwise, rule)


def choice(
    description: str, values: Mapping[str, _Value], otherwise: _Value
) -> QueryParameter[_Value]:
    """Return a parameter that is one of several words, each with its value."""
    *words, last = values
    schema: dict[str, Any] = {"type": "string", "enum": [*words, last]}
    if otherwise in values.values():
        schema["default"] = next(word for word in values if values[word] == otherwise)
    rule = f"must be {', '.join(words)} or {last}"
    return QueryParameter(description, schema, values.__getitem__, otherwise, rule)


def flag(description: str) -> QueryParameter[bool]:
    """Return a parameter that is `true` or `false`; absent, it is false."""
    parameter = choice(description, TRUTHS, otherwise=False)
    parameter.schema = {"type": "boolean", "default": False}
    return parameter


def moment(description: str, name: str = "") -> QueryParameter[datetime | None]:
    """Return a parameter that is a moment, or a date as its beginning in UTC."""
    schema = {"type": "string", "format": "date-time"}
    rule = f"must be a date, or a moment in RFC 3339 form with a time zone; e.g. {_MOMENTS}"
    return QueryParameter(description, schema, parse_moment, None, rule, name)


def uuid(description: str) -> QueryParameter[UUID | None]:
    """Return a parameter that is a UUID."""

    def parse(text: str) -> UUID:
        return msgspec.convert(text, UUID)

    schema = {"type": "string", "format": "uuid"}
    return QueryParameter(description, schema, parse, None, "must be a UUID")


def cursor(parse: Callable[[str], _Value | None], **schema: str) -> QueryParameter[_Value | None]:
    """Return a parameter that is the place where a page begins; without it, the first page."""
    description = "`next_cursor` of the page before."
    return QueryParameter(description, {"type": "string", **schema}, parse, None, CURSOR_RULE)


def parse_moment(text: str, *, local: bool = False) -> datetime:
    """Return a moment or a date, in UTC; if it is `local`, one without an offset stays without.

    Otherwise a date is its beginning in UTC, and a moment needs an offset. In a query string a bare
    `+` is a space, so one before an offset counts as the `+` that was meant.

    Raises:
        ValueError: it is neither.
        OverflowError: it has no UTC, as some of the calendar's first and last days.
    """
    parsed = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text.upper()))
    if not _SHAPE.fullmatch(text) or not (parsed.tzinfo or local or _DATE.fullmatch(text)):
        raise ValueError(text)
    if parsed.tzinfo is None:
        return parsed if local else parsed.replace(tzinfo=UTC)
    return parsed.astimezone(UTC)


def check_query(request: Request, known: Collection[str]) -> None:
    """Refuse a parameter that the route does not have, and one that is given twice.

    A misspelt parameter that was ignored would leave the client with the answer to another request.

    Raises:
        MalformedError: naming the parameter, and those that the route has.
    """
    query: bytes = request.scope["query_string"]
    if not query:
        return
    # One more than the route has is unknown or given twice, so the rest need not be read.
    parts = [one for one in query.split(b"&") if one][: len(known) + 1]
    given: set[str] = set()
    for name, _ in parse_qsl(b"&".join(parts).decode("latin-1"), keep_blank_values=True):
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise MalformedError(f"the route has no query parameter {name[:_SHOWN_MAX]!r}; {takes}")
        if name in given:
            raise MalformedError(f"the query parameter {name} is given twice")
        given.add(name)
