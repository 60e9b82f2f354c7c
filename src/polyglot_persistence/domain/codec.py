r"""The bytes of an order: its JSON, its cache entry, the message of a batch, and its checksum.

An order's JSON is encoded once, when it is accepted; entry and message embed those bytes, and a
read returns them unchanged.

    entry    D1763863562123456 <unit id> <unit size> <0|1 created_at given>\n{"id": ...}
    message  [{"accepted_at": 1763863562123456, "order": {...}},
              {"accepted_at": ..., "unit_id": "...", "unit_size": 3, "order": {...}}, ...]

Invariant: decoding refuses what this version does not fully understand; it never guesses.
Invariant: a change of what `checksum` returns is a change of the form of both search indexes.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec

from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import (
    AMOUNT_MAX,
    CENT,
    AcceptedOrder,
    Order,
    from_micros,
    id_text,
    parse_amount,
    stored_name,
    to_micros,
)
from polyglot_persistence.errors import InvalidError, PoisonError

SCHEMA_VERSION = 1
"""Version of the message's form. A newer message waits for a newer worker and is never
dead-lettered."""

UNIT_SIZE_MAX = 1_000

NAMES_CACHED_MAX = 4_096
"""Below 1 MB. An order stream repeats its names, and checking one costs 0.4 us."""

_UNREADABLE = (
    ValueError,  # including msgspec's errors, and invalid UTF-8
    OverflowError,  # a time outside of the calendar
    RecursionError,  # brackets in brackets in brackets
    InvalidError,
)

_encoder = msgspec.json.Encoder(decimal_format="number")


class _OrderText(msgspec.Struct, gc=False):
    """An order as decoded from JSON, before its rules are checked again."""

    id: UUID
    product_name: str
    amount: Decimal
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Item(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One item of a message."""

    accepted_at: int
    order: _OrderText
    unit_id: UUID | None = None
    unit_size: Annotated[int, msgspec.Meta(ge=1, le=UNIT_SIZE_MAX)] = 1
    created_at_given: bool = False


class _OrderId(msgspec.Struct):
    id: UUID


class _Identity(msgspec.Struct):
    """The fields that identify an item's order, if the rest of it cannot be read."""

    order: _OrderId
    unit_id: UUID | None = None


_identity_decoder = msgspec.json.Decoder(_Identity)
_order_decoder = msgspec.json.Decoder(_OrderText)
_message_decoder = msgspec.json.Decoder(list[_Item])
_item_decoder = msgspec.json.Decoder(_Item)
_raw_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def encode_order(order: Order) -> bytes:
    """Return the order's JSON: amount as an exact number, created_at in UTC."""
    return _encoder.encode(order)


def encode_entry(state: EntryState, accepted: AcceptedOrder, body: bytes) -> bytes:
    """Return a cache entry; `body` is `encode_order(accepted.order)`."""
    return _entry_head(state, accepted) + body


def encode_entries(state: EntryState, unit: Sequence[tuple[AcceptedOrder, bytes]]) -> list[bytes]:
    """Return the entries of a unit's members, which all share a beginning."""
    head = _entry_head(state, unit[0][0])
    return [head + body for _, body in unit]


def _entry_head(state: EntryState, accepted: AcceptedOrder) -> bytes:
    return b"%b%d %b %d %d\n" % (
        state,
        to_micros(accepted.accepted_at),
        id_text(accepted.unit_id),
        accepted.unit_size,
        accepted.created_at_given,
    )


_STATES = {state.value: state for state in EntryState}


def entry_state(raw: bytes) -> EntryState | None:
    """Return the state of an entry without decoding it; None for a state of a newer version."""
    return _STATES.get(raw[:1])


def entry_body(raw: bytes) -> bytes | None:
    """Return the order's JSON from an entry without decoding it, None if there is none."""
    _, newline, body = raw.partition(b"\n")
    return body if newline and raw[:1] in _STATES else None


def decode_entry(raw: bytes) -> Entry:
    """Return the entry.

    Raises:
        PoisonError: the bytes are not a valid entry.
    """
    try:
        head, body = raw.split(b"\n", 1)
        accepted_at, unit_id, unit_size, given = head[1:].split(b" ")
        accepted = AcceptedOrder(
            _order(_order_decoder.decode(body)),
            from_micros(int(accepted_at)),
            UUID(unit_id.decode()),
            int(unit_size),
            given == b"1",
        )
        return Entry(EntryState(raw[:1]), accepted, body)
    except _UNREADABLE as error:
        raise PoisonError(f"not a cache entry: {error}") from error


def encode_message(units: Iterable[Sequence[tuple[AcceptedOrder, bytes]]]) -> bytes:
    """Return a message of whole units, each order with its `encode_order` bytes."""
    items: list[bytes] = []
    for unit in units:
        head = _item_head(unit[0][0])  # all members share a beginning
        items += [b"%b%b}" % (head, body) for _, body in unit]
    return b"[" + b",\n".join(items) + b"]"


class Reject(NamedTuple):
    """A message item that no worker can ever persist, with its original bytes."""

    payload: bytes
    reason: str
    order_id: UUID | None = None
    """None if even the id is unreadable."""
    unit_id: UUID | None = None


class Decoded(NamedTuple):
    """Contents of a message: whole units of orders, in order, and the unreadable items."""

    orders: Sequence[AcceptedOrder]
    rejects: Sequence[Reject]


def decode_message(body: bytes) -> Decoded:
    """Return the contents of a message; an unreadable item never affects its neighbors.

    A unit with an unreadable or missing member is rejected whole, item by item.
    """
    try:
        batch = [_accepted(item) for item in _message_decoder.decode(body)]
    except _UNREADABLE:
        return _decode_item_by_item(body)
    return _whole_units([(accepted, b"") for accepted in batch], [], body)


def _decode_item_by_item(body: bytes) -> Decoded:
    try:
        items = _raw_decoder.decode(body)
    except _UNREADABLE as error:
        return Decoded([], [Reject(body, f"not a message of version {SCHEMA_VERSION}: {error}")])
    batch: list[tuple[AcceptedOrder, bytes]] = []
    rejects: list[Reject] = []
    for item in items:
        raw = bytes(item)
        try:
            batch.append((_accepted(_item_decoder.decode(raw)), raw))
        except _UNREADABLE as error:
            rejects.append(_reject(raw, str(error)))
    return _whole_units(batch, rejects, body)


def _whole_units(
    batch: list[tuple[AcceptedOrder, bytes]], rejects: list[Reject], body: bytes
) -> Decoded:
    if all(accepted.unit_size == 1 for accepted, _ in batch):
        return Decoded([accepted for accepted, _ in batch], rejects)
    counts = Counter((one.unit_id, one.unit_size) for one, _ in batch if one.unit_size > 1)
    # A unit may occur twice: its client sent it again before the first was answered.
    broken = {unit: found for unit, found in counts.items() if found % unit[1]}
    if broken and not all(raw for _, raw in batch):
        return _decode_item_by_item(body)  # to get the bytes of the rejected items
    orders = []
    for accepted, raw in batch:
        found = broken.get((accepted.unit_id, accepted.unit_size))
        if found is None:
            orders.append(accepted)
        else:
            reason = f"unit {accepted.unit_id} has {found} of {accepted.unit_size} orders"
            rejects.append(Reject(raw, reason, accepted.order.id, accepted.unit_id))
    return Decoded(orders, rejects)


def encode_item(accepted: AcceptedOrder, body: bytes) -> bytes:
    """Return one item of a message; `body` is `encode_order(accepted.order)`."""
    return b"%b%b}" % (_item_head(accepted), body)


def _item_head(accepted: AcceptedOrder) -> bytes:
    given = b',"created_at_given":true' if accepted.created_at_given else b""
    unit = (
        b',"unit_id":"%b","unit_size":%d' % (id_text(accepted.unit_id), accepted.unit_size)
        if accepted.unit_size > 1
        else b""
    )
    return b'{"accepted_at":%d%b%b,"order":' % (to_micros(accepted.accepted_at), unit, given)


def decode_item(raw: bytes) -> AcceptedOrder:
    """Return the accepted order of one item, whether or not its unit is complete.

    Raises:
        PoisonError: the bytes are not a valid item.
    """
    try:
        return _accepted(_item_decoder.decode(raw))
    except _UNREADABLE as error:
        raise PoisonError(f"not an item of a message: {error}") from error


def readable_item(raw: bytes) -> AcceptedOrder | None:
    """Return the same, or None if the bytes are not a valid item."""
    try:
        return decode_item(raw)
    except PoisonError:
        return None


def _reject(raw: bytes, reason: str) -> Reject:
    try:
        item = _identity_decoder.decode(raw)
    except _UNREADABLE:
        return Reject(raw, reason)
    return Reject(raw, reason, item.order.id, item.unit_id or item.order.id)


def _accepted(item: _Item) -> AcceptedOrder:
    order = _order(item.order)
    return AcceptedOrder(
        order,
        from_micros(item.accepted_at),
        order.id if item.unit_size == 1 or item.unit_id is None else item.unit_id,
        item.unit_size,
        item.created_at_given,
    )


_stored_name = functools.lru_cache(maxsize=NAMES_CACHED_MAX)(stored_name)
_ZERO = Decimal(0)


def _order(text: _OrderText) -> Order:
    amount = text.amount
    return Order(
        text.id,
        _stored_name(text.product_name, "product_name"),
        # Nearly every amount already has two decimals.
        amount
        if amount.same_quantum(CENT) and _ZERO < amount <= AMOUNT_MAX
        else parse_amount(amount, "amount"),
        # The decoder's UTC is this very object.
        text.created_at if text.created_at.tzinfo is UTC else text.created_at.astimezone(UTC),
    )


def checksum(order: Order) -> int:
    """Return 32 bits of the SHA-256 of id, cents, microsecond and name: the whole order.

    PostgreSQL computes the same number (its function `order_checksum`); a search document carries
    it. Sums of it do not depend on the order of rows, and stay exact for two million orders in a
    binary float, which engines add in.

    Raises:
        ValueError: the name cannot be encoded in UTF-8.
    """
    cents = int(order.amount.scaleb(2))
    micros = to_micros(order.created_at)
    return checksum_of(id_text(order.id), cents, micros, order.product_name.encode())


def checksum_of(order_id: bytes, cents: int, micros: int, name: bytes) -> int:
    """Same as `checksum`, from encoded parts: the id's text and the name in UTF-8."""
    digest = hashlib.sha256(b"%b %d %d %b" % (order_id, cents, micros, name)).digest()
    return int.from_bytes(digest[:4], "big")
