"""The query strings and the JSON of orders, as types that parse, decode, encode and describe them.

Invariant: the types of request bodies are the fast path only; `requests.py` checks what they refuse
again, rule by rule, and has the last word.
"""

import base64
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from polyglot_persistence.api.web import queries as q
from polyglot_persistence.api.web.problems import Problem
from polyglot_persistence.api.web.schemas import AmountOut, Moment, NextPage, ProductName
from polyglot_persistence.domain.order import AMOUNT_MAX, Order, from_micros, to_micros

PAGE_ORDERS_MAX = 200
FIRST_LINE_MAX = 10**12
"""Far more lines than one body has, and exact in JSON for any client."""

_MICROS_BYTES = 8


def cursor_of(order: Order) -> str:
    """Return the cursor of the page that begins after an order; opaque to clients."""
    micros = to_micros(order.created_at).to_bytes(_MICROS_BYTES, "big", signed=True)
    return base64.urlsafe_b64encode(micros + order.id.bytes).decode()


def _parse_cursor(text: str) -> tuple[datetime, UUID] | None:
    if not text:
        return None
    place = base64.b64decode(text, altchars=b"-_", validate=True)
    micros = int.from_bytes(place[:_MICROS_BYTES], "big", signed=True)
    return from_micros(micros), UUID(bytes=place[_MICROS_BYTES:])


class OrderPageParameters(q.QueryParameters):
    """Page of the list of orders."""

    cursor = q.cursor(_parse_cursor)
    limit = q.count("Orders a page.", 50, cap=PAGE_ORDERS_MAX)


class ImportParameters(q.QueryParameters):
    """Numbering of an import's lines, and the answer if some are rejected."""

    first_line = q.count(
        "The number of the body's first line, from which all others count. A line ends with a "
        "line feed; blank lines count. With a key, a line's identity is its number.",
        1,
        maximum=FIRST_LINE_MAX,
    )
    on_rejected = q.choice(
        "`fail`: 422 if any line was rejected. `report`: always 200, for clients that read "
        "`rejected` and `errors`.",
        {"fail": False, "report": True},
        otherwise=False,
    )


ORDERS_PER_BULK_MAX = 1_000
"""`codec.UNIT_SIZE_MAX`: a bulk is one unit, one message and one transaction."""
# `Any`: a number arrives as its text (`float_hook`), a string as it is. Neither ever becomes a
# binary float.
AmountIn = Annotated[
    Any,
    Meta(
        description="A number, or a string that contains one; at most two decimals; kept exactly.",
        examples=[1299.99],
        extra_json_schema={
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": float(AMOUNT_MAX)},
                {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,2})?$"},
            ]
        },
    ),
]


class OrderIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An order to be accepted."""

    product_name: ProductName
    amount: AmountIn


class BulkIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A bulk: accepted, persisted or dead-lettered as a whole."""

    orders: Annotated[
        list[OrderIn], Meta(extra_json_schema={"minItems": 1, "maxItems": ORDERS_PER_BULK_MAX})
    ]


class PairIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Two products, stored as a bulk of two orders over 100.00 and 50.00.

    If `item_2` is `ERROR`, nothing is stored, which shows that a bulk is all or nothing.
    """

    item_1: ProductName
    item_2: ProductName


class ImportLineIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One line of an import."""

    product_name: ProductName
    amount: AmountIn
    id: Annotated[
        UUID | None, Meta(description="Any UUID; the same line again changes nothing.")
    ] = None
    created_at: Annotated[
        Moment | None,
        Meta(
            description="RFC 3339 with a zone, from 1970 until a day from now. A leap second "
            "counts as the second after it."
        ),
    ] = None


class AcceptedOut(msgspec.Struct, frozen=True, gc=False):
    """An order is durable: acknowledged, or already in the system of record."""

    order_id: UUID
    status: Literal["processing", "persisted", "dead-lettered"]


class BulkAcceptedOut(msgspec.Struct, frozen=True, gc=False):
    """A bulk is durable; the ids are in the order of the request."""

    order_ids: list[UUID]
    status: Literal["processing", "persisted", "dead-lettered"]


class LineErrorOut(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A line that was not accepted, and why."""

    line: Annotated[int, Meta(description="Counted from `first_line`, blank lines included.")]
    detail: str
    id: Annotated[str | None, Meta(description="The line's own id, if it could be read.")] = None


class ImportOut(msgspec.Struct, gc=False):
    """The outcome of an import."""

    accepted: Annotated[int, Meta(description="New and durable.")]
    unchanged: Annotated[int, Meta(description="Stored before, with the same content.")]
    rejected: int
    errors: Annotated[list[LineErrorOut], Meta(description="The first rejected lines.")]
    errors_omitted: Annotated[int, Meta(description="Rejected lines that are not listed.")]


class OrderOut(msgspec.Struct, frozen=True, gc=False):
    """An order."""

    id: UUID
    product_name: ProductName
    amount: AmountOut
    created_at: Moment

    @classmethod
    def of(cls, order: Order) -> "OrderOut":
        """Return an order in its published form."""
        return cls(order.id, order.product_name, order.amount, order.created_at)


class OrderPageOut(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Persisted orders, newest first."""

    orders: list[OrderOut]
    next: NextPage = None
    next_cursor: str | None = None


class OrderStatusOut(msgspec.Struct, frozen=True, gc=False):
    """The stages that an order has reached; an unknown time is null."""

    order_id: UUID
    status: Literal["processing", "persisted", "searchable", "dead-lettered"]
    accepted_at: Moment | None
    persisted_at: Moment | None
    searchable_at: Moment | None
    dead_lettered_at: Moment | None
    reason: Annotated[str | None, Meta(description="Why it was dead-lettered.")]


class ImportProblem(Problem, frozen=True):
    """A problem of a partial import, with its totals.

    Line numbers count from `first_line`, blank lines included.
    """

    accepted: Annotated[int, Meta(description="New and durable.")] = 0
    unchanged: Annotated[int, Meta(description="Stored before, with the same content.")] = 0
    rejected: int = 0
    first_line_not_accepted: Annotated[
        int,
        Meta(
            description="Every line before it was accepted or rejected. With an `Idempotency-Key`, "
            "send it and the rest with the same key and this number as `first_line`. Absent if the "
            "body was read to its end."
        ),
    ] = 0
    lines_read: Annotated[int, Meta(description="Number of the last line that was read.")] = 0
    lines_not_accepted: Annotated[
        list[int],
        Meta(
            description="All of the lines up to `lines_read` that were neither accepted nor "
            "rejected. Without a key, send them and all lines after `lines_read`."
        ),
    ] = msgspec.field(default_factory=list)
    lines_unknown: Annotated[
        list[int],
        Meta(
            description="Those of them that may be stored; the others were refused. If there are "
            "any, the status is 504. Sent again, they are stored once if they have an `id` or the "
            "import has a key."
        ),
    ] = msgspec.field(default_factory=list)
    lines_rejected: Annotated[list[LineErrorOut], Meta(description="The first rejected lines.")] = (
        msgspec.field(default_factory=list)
    )
    lines_rejected_omitted: Annotated[
        int, Meta(description="Rejected lines that are not listed.")
    ] = 0
