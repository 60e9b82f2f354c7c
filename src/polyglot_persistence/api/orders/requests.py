"""Parses request bodies, and names the rules that they break.

Each parser tries the typed decoder first. A body that the decoder refuses is read again without
types, rule by rule, to name every broken rule by a JSON pointer (RFC 6901).

Invariant: what a parser returns obeys the rules of `domain.order`; no amount was ever a float.
Invariant: JSON that breaks a rule raises `InvalidError`; invalid JSON raises `MalformedError`.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from polyglot_persistence.api.orders.schemas import (
    ORDERS_PER_BULK_MAX,
    BulkIn,
    ImportLineIn,
    OrderIn,
)
from polyglot_persistence.api.web.json_text import Number, plain_values, pointer_step, twice
from polyglot_persistence.api.web.problems import VIOLATIONS_MAX
from polyglot_persistence.api.web.schemas import Moment
from polyglot_persistence.domain.order import Content, id_text, parse_amount, parse_name
from polyglot_persistence.errors import InvalidError, MalformedError, RejectedError, Violation
from polyglot_persistence.flows.intake.accept import ImportLine

PAIR_AMOUNTS = (Decimal("100.00"), Decimal("50.00"))
"""What the two orders of an item_1/item_2 body cost, as with the Go peer."""
PAIR_FAILS = "ERROR"

CREATED_AT_MIN = datetime(1970, 1, 1, tzinfo=UTC)
"""Earlier moments are usually mistakes, and 64-bit nanoseconds, as a search engine may count them,
begin in 1677."""
CREATED_AT_AHEAD_MAX = timedelta(days=1)
"""Other machines' clocks are wrong, by hours if a time zone was forgotten."""

BULK_VALUES_MAX = 12_000
"""A bulk that breaks a rule is read in full to name each one; with more values than these that
takes longer than other clients should wait. A bulk of 1,000 orders has 3,001."""
_BEFORE_VALUES = (b",", b"[", b"{")
"""Each value comes after one of them, but for those of members, which have a comma or brace of
their own. In names they are counted as well."""

# RFC 3339, 5.7: the second is 60. A clock without leap seconds, as every store's is, shows the
# second after it (POSIX, 4.19).
_LEAP_SECOND = re.compile(r"(.{10}[Tt ][0-9]{2}:[0-9]{2}:)60((?:\.[0-9]+)?[^.]{1,6})", re.ASCII)

# JSON numbers are decoded as text, so that no digit is lost.
_order_decoder = msgspec.json.Decoder(OrderIn, float_hook=str)
_bulk_decoder = msgspec.json.Decoder(BulkIn, float_hook=str)
_line_decoder = msgspec.json.Decoder(ImportLineIn, float_hook=str)

_MEMBERS = OrderIn.__struct_fields__
"""Of an order's object; an import line may have others, too."""

# msgspec's errors are ValueErrors, and so is a body that is not UTF-8.
_REFUSED = (ValueError, RecursionError, InvalidError)

_MEMBER = re.compile(rb'"\s*:')


class _MemberTwiceError(ValueError):
    """An object may have two members of one name; the typed decoder uses the last."""


def _may_have_more(body: bytes, members: int) -> bool:
    """Whether JSON that was decoded may have more members than the objects that came of it.

    Each has a colon after its name; counting colons, which takes 0.04 us and is for the caller to
    do first, is enough for most bodies. Text that looks like the end of a name is one too many
    here, and is looked at again by what names broken rules.
    """
    return next(islice(_MEMBER.finditer(body), members, None), None) is not None


_Value = TypeVar("_Value")

_ID_CHARACTERS = 36


def parse_order_id(text: str) -> UUID:
    """Return the id in an order's path, in the canonical form of 36 characters only.

    Raises:
        MalformedError: it is not a UUID.
    """
    if len(text) == _ID_CHARACTERS:
        try:
            order_id = msgspec.convert(text, UUID)  # a fifth of the time of UUID(text)
        except msgspec.ValidationError:
            pass
        else:
            if id_text(order_id) == text.lower().encode():
                return order_id
    raise MalformedError("an order's id must be a UUID, e.g. 01890a5d-ac96-774b-bcce-b302099a8057")


def parse_order(body: bytes) -> Content:
    """Return the content of a JSON body.

    Raises:
        MalformedError: it is not valid JSON.
        InvalidError: with every rule that it breaks.
    """
    try:
        order = _order_decoder.decode(body)
        if body.count(b":") > len(_MEMBERS) and _may_have_more(body, len(_MEMBERS)):
            raise _MemberTwiceError
        return _content(order)
    except _REFUSED:
        check = _Check()
        content = check.order(plain_values(body), "")
        check.finish()
        return content


def parse_bulk(body: bytes) -> list[Content]:
    """Return the orders of a bulk, in either of its two forms.

    Raises:
        MalformedError: it is not valid JSON.
        InvalidError: with the rules that it breaks, each with its order's place in the pointer.
    """
    try:
        orders = _bulk_decoder.decode(body).orders
        members = 1 + len(_MEMBERS) * len(orders)
        is_in_bounds = 1 <= len(orders) <= ORDERS_PER_BULK_MAX
        if is_in_bounds and (body.count(b":") <= members or not _may_have_more(body, members)):
            return [_content(order) for order in orders]
    except _REFUSED:
        pass
    if sum(map(body.count, _BEFORE_VALUES)) > BULK_VALUES_MAX:
        raise InvalidError(
            Violation(
                "",
                f"must hold 1 to {ORDERS_PER_BULK_MAX} orders; the body has too many commas and "
                "brackets to check it further",
            )
        )
    check = _Check()
    bulk = check.bulk(plain_values(body))
    check.finish()
    return bulk


def _content(decoded: OrderIn | ImportLineIn) -> Content:
    # Whatever is refused here is read again, which names it.
    return (
        parse_name(decoded.product_name, "/product_name"),
        parse_amount(decoded.amount, "/amount"),
    )


def is_import_line(text: bytes, now: datetime) -> bool:
    """Whether a line of an import is an order."""
    try:
        parse_import_line(text, now)
    except RejectedError:
        return False
    return True


def parse_import_line(text: bytes, now: datetime) -> ImportLine:
    """Return the order of one line of an import.

    Raises:
        MalformedError: it is not valid JSON.
        InvalidError: with every rule that it breaks.
    """
    try:
        line = _line_decoder.decode(text)
        members = len(_MEMBERS) + (line.id is not None) + (line.created_at is not None)
        # A moment has two colons at least, unless they are written as escapes.
        colons = members if line.created_at is None or b"\\" in text else members + 2
        if text.count(b":") > colons and _may_have_more(text, members):
            raise _MemberTwiceError
        return ImportLine(
            _content(line),
            line.id,
            None if line.created_at is None else _parse_created_at(line.created_at, now),
        )
    except _REFUSED:
        check = _Check()
        parsed = check.import_line(plain_values(text), now)
        check.finish()
        return parsed


class _Check:
    """Collects the broken rules of one body, up to a bound."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def finish(self) -> None:
        """Raise `InvalidError` if any rule was broken."""
        if self._violations:
            raise InvalidError(*self._violations)

    def order(self, value: Any, pointer: str) -> Content:
        return self._content(self._fields(value, pointer, required=_MEMBERS), pointer)

    def bulk(self, value: Any) -> list[Content]:
        names = {name for name, _ in value} if isinstance(value, tuple) else set()
        if "orders" not in names and names & _PAIR_FIELDS:
            return self._pair(value)
        fields = self._fields(value, "", required=("orders",))
        orders = fields.get("orders")
        if orders is None and "orders" not in fields:
            return []
        if not isinstance(orders, list):
            self._broken("/orders", "must be an array")
            return []
        if not 1 <= len(orders) <= ORDERS_PER_BULK_MAX:
            self._broken(
                "/orders", f"must hold 1 to {ORDERS_PER_BULK_MAX} orders, not {len(orders)}"
            )
            return []
        bulk = []
        for position, order in enumerate(orders):
            bulk.append(self.order(order, f"/orders/{position}"))
            if len(self._violations) > VIOLATIONS_MAX:
                break
        return bulk

    def import_line(self, value: Any, now: datetime) -> ImportLine:
        fields = self._fields(value, "", required=_MEMBERS, optional=("id", "created_at"))
        return ImportLine(
            self._content(fields, ""),
            self._take(fields, "", "id", _parse_id, None),
            self._take(
                fields,
                "",
                "created_at",
                lambda text, pointer: _created_at(text, pointer, now),
                None,
            ),
        )

    def _content(self, fields: Mapping[str, Any], pointer: str) -> Content:
        return (
            self._name(fields, pointer, "product_name"),
            self._take(fields, pointer, "amount", parse_amount, Decimal()),
        )

    def _pair(self, value: Any) -> list[Content]:
        fields = self._fields(value, "", required=("item_1", "item_2"))
        names = [self._name(fields, "", field) for field in ("item_1", "item_2")]
        if names[1] == PAIR_FAILS:
            self._broken("/item_2", f"is {PAIR_FAILS}, which simulates an order that fails")
        return list(zip(names, PAIR_AMOUNTS, strict=True))

    def _fields(
        self,
        value: Any,
        pointer: str,
        *,
        required: tuple[str, ...],
        optional: tuple[str, ...] = (),
    ) -> Mapping[str, Any]:
        if not isinstance(value, tuple):
            self._broken(pointer, "must be an object")
            return {}
        fields: dict[str, Any] = dict(value)
        for field in twice(value) if len(fields) < len(value) else ():
            self._broken(f"{pointer}/{pointer_step(field)}", "is given twice")
        for field in fields:
            if field not in required and field not in optional:
                self._broken(f"{pointer}/{pointer_step(field)}", "is an unknown field")
        for field in required:
            if field not in fields:
                self._broken(f"{pointer}/{field}", "is missing")
        return fields

    def _name(self, fields: Mapping[str, Any], pointer: str, field: str) -> str:
        return self._take(
            fields, pointer, field, lambda value, at: parse_name(_no_text(value), at), ""
        )

    def _take(
        self,
        fields: Mapping[str, Any],
        pointer: str,
        field: str,
        parse: Callable[[Any, str], _Value],
        otherwise: _Value,
    ) -> _Value:
        if field not in fields:
            return otherwise
        try:
            parsed = parse(fields[field], f"{pointer}/{field}")
        except InvalidError as error:
            for violation in error.violations:
                self._broken(*violation)
            return otherwise
        return parsed

    def _broken(self, pointer: str, detail: str) -> None:
        if len(self._violations) <= VIOLATIONS_MAX:  # one more than listed tells that there are
            self._violations.append(Violation(pointer, detail))


_PAIR_FIELDS = {"item_1", "item_2"}
_NO_TEXT = object()


def _no_text(value: Any) -> Any:
    """Return the value, or a marker that text parsers refuse if it is a JSON number."""
    return _NO_TEXT if isinstance(value, Number) else value


def _parse_id(value: Any, pointer: str) -> UUID | None:
    try:
        return msgspec.convert(_no_text(value), UUID | None)
    except msgspec.ValidationError:
        raise InvalidError(Violation(pointer, "must be a UUID")) from None


def _created_at(value: Any, pointer: str, now: datetime) -> datetime | None:
    value = _no_text(value)
    leap = isinstance(value, str) and _LEAP_SECOND.fullmatch(value)
    try:
        moment = msgspec.convert(f"{leap[1]}59{leap[2]}" if leap else value, Moment | None)
    except msgspec.ValidationError:
        raise InvalidError(
            Violation(pointer, "must be a moment in RFC 3339 form with a time zone")
        ) from None
    if moment is None:
        return None
    # In range first: the calendar's last second has no next, and its first days no UTC.
    moment = _parse_created_at(moment, now, pointer)
    if not leap:
        return moment
    moment += timedelta(seconds=1)
    if (moment.day, moment.hour, moment.minute, moment.second) != (1, 0, 0, 0):
        raise InvalidError(
            Violation(
                pointer, "has second 60, which is valid only in the last minute of a UTC month"
            )
        )
    return moment


def _parse_created_at(moment: datetime, now: datetime, pointer: str = "/created_at") -> datetime:
    # Aware moments are compared before they are converted: the first and last days of the
    # calendar have no UTC.
    if not CREATED_AT_MIN <= moment <= now + CREATED_AT_AHEAD_MAX:
        raise InvalidError(Violation(pointer, "must lie between 1970 and a day from now"))
    return moment.astimezone(UTC)
