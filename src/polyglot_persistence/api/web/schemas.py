"""The JSON of every request and answer, as types that decode, encode and describe it.

`openapi.py` makes the published description out of these same types.

Invariant: the types of requests are the fast path only; what they refuse, `requests.py` looks at
again, rule by rule, and it has the last word.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from polyglot_persistence.domain.order import (
    AMOUNT_MAX,
    BIDI_CONTROLS,
    INVISIBLE,
    NAME_CHARACTERS_MAX,
    NONCHARACTERS,
)

ORDERS_PER_BULK_MAX = 1_000
"""`codec.UNIT_SIZE_MAX`: a bulk is one unit, one message and one transaction."""

# The limits stand in the schema only: a name is measured after trimming, which msgspec cannot do.
_NO = rf"\x00-\x1f\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}{NONCHARACTERS}"
_NAME_LIMITS: dict[str, Any] = {
    "minLength": 1,
    "maxLength": NAME_CHARACTERS_MAX,
    "pattern": rf"^[^{_NO}]*[^{_NO}{INVISIBLE}][^{_NO}]*$",
}
PRODUCT_NAME_SCHEMA = {"type": "string", **_NAME_LIMITS}
ProductName = Annotated[
    str,
    Meta(
        description="Stored without surrounding blanks and in Unicode's composed form (NFC). No "
        "control characters, none that turn the direction of text, and no noncharacters (U+FFFE); "
        "at least one is visible.",
        examples=["Laptop"],
        extra_json_schema=_NAME_LIMITS,
    ),
]
# `Any`, because a number comes as its own text (`float_hook`) and a string as it is: neither ever
# becomes a binary float.
AmountIn = Annotated[
    Any,
    Meta(
        description="A number, or a string that holds one; at most two decimals; taken exactly.",
        examples=[1299.99],
        extra_json_schema={
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": float(AMOUNT_MAX)},
                {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,2})?$"},
            ]
        },
    ),
]
AmountOut = Annotated[Decimal, Meta(description="Exact, two decimals.")]
Moment = Annotated[datetime, Meta(tz=True)]


class OrderIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An order to be accepted."""

    product_name: ProductName
    amount: AmountIn


class BulkIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A bulk: accepted, persisted or dead-lettered as a whole."""

    orders: Annotated[
        list[OrderIn],
        Meta(extra_json_schema={"minItems": 1, "maxItems": ORDERS_PER_BULK_MAX}),
    ]


class PairIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Two products, stored as a bulk of two orders over 100.00 and 50.00.

    With `item_2` being `ERROR` nothing is stored, to show that a bulk is all or nothing.
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
            description="RFC 3339 with a zone, from 1970 until a day from now. A leap second is "
            "the second after it."
        ),
    ] = None


class AcceptedOut(msgspec.Struct, frozen=True, gc=False):
    """An order is durable: acknowledged, or already in the system of record."""

    order_id: UUID
    status: Literal["processing", "persisted", "dead-lettered"]


class BulkAcceptedOut(msgspec.Struct, frozen=True, gc=False):
    """A bulk is durable; the ids stand in the order of the request."""

    order_ids: list[UUID]
    status: Literal["processing", "persisted", "dead-lettered"]


class LineErrorOut(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A line that was not accepted, and why."""

    line: Annotated[int, Meta(description="Counted from `first_line`, blank lines included.")]
    detail: str
    id: Annotated[str | None, Meta(description="The line's own id, where it could be read.")] = None


class ImportOut(msgspec.Struct, frozen=True, gc=False):
    """What became of the lines of an import."""

    accepted: Annotated[int, Meta(description="New and durable.")]
    unchanged: Annotated[int, Meta(description="There before, with the same content.")]
    rejected: int
    errors: Annotated[list[LineErrorOut], Meta(description="Of the first rejected lines.")]
    errors_omitted: Annotated[int, Meta(description="Rejected lines that are not listed.")]


class OrderOut(msgspec.Struct, frozen=True, gc=False):
    """An order."""

    id: UUID
    product_name: ProductName
    amount: AmountOut
    created_at: Moment


class OrderPageOut(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Persisted orders, newest first."""

    orders: list[OrderOut]
    next: Annotated[str | None, Meta(description="Path of the next page; absent on the last.")] = (
        None
    )
    next_cursor: str | None = None


class OrderStatusOut(msgspec.Struct, frozen=True, gc=False):
    """The stages that an order has reached; a time that is not known is null."""

    order_id: UUID
    status: Literal["processing", "persisted", "searchable", "dead-lettered"]
    accepted_at: Moment | None
    persisted_at: Moment | None
    searchable_at: Moment | None
    dead_lettered_at: Moment | None
    reason: Annotated[str | None, Meta(description="Why it was dead-lettered.")]


class HitOut(msgspec.Struct, frozen=True, gc=False):
    """An order whose name matches."""

    id: UUID
    product_name: str
    highlighted: Annotated[
        str, Meta(description="The name as HTML, safe to show; what matches is within `<mark>`.")
    ]
    amount: AmountOut
    created_at: Moment
    score: Annotated[float, Meta(description="Up to 1, which is: every word exactly.")]


class PriceRangeOut(msgspec.Struct, frozen=True, gc=False, rename={"low": "from", "high": "to"}):
    """How many orders cost from one amount up to, and without, another."""

    low: AmountOut
    high: Annotated[AmountOut | None, Meta(description="Null: however much.")]
    orders: int


class DayOrdersOut(msgspec.Struct, frozen=True, gc=False):
    """How many orders are of a UTC day."""

    day: date
    orders: int


class NameOrdersOut(msgspec.Struct, frozen=True, gc=False):
    """How many orders have a product name."""

    product_name: str
    orders: int


class FacetsOut(msgspec.Struct, frozen=True, gc=False):
    """Everything that matched, counted; what has no order is not listed."""

    prices: Annotated[list[PriceRangeOut], Meta(description="The cheapest first.")]
    days: Annotated[list[DayOrdersOut], Meta(description="The latest.")]
    products: Annotated[list[NameOrdersOut], Meta(description="The most ordered.")]


class SearchOut(msgspec.Struct, gc=False, omit_defaults=True):
    """A page of matches, and how many there are in all."""

    total: int
    total_is: Literal["exact", "at_least"]
    hits: list[HitOut]
    did_you_mean: Annotated[
        str | None, Meta(description="Other words that do find something, if these do not.")
    ]
    took_ms: float
    facets: Annotated[FacetsOut | None, Meta(description="Only with `facets=true`.")] = None
    next: Annotated[str | None, Meta(description="Path of the next page; absent on the last.")] = (
        None
    )
    next_cursor: str | None = None


class SuggestionOut(msgspec.Struct, frozen=True, gc=False):
    """A product name that completes what was typed."""

    product_name: str
    highlighted: str


class SuggestionsOut(msgspec.Struct, frozen=True, gc=False):
    """The most ordered of the names that complete what was typed."""

    suggestions: list[SuggestionOut]
    took_ms: float


class DaySalesOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one UTC day."""

    date: date
    total_revenue: AmountOut
    orders: int


class PeriodOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one period."""

    start: Annotated[Moment, Meta(description="In the asked time zone.")]
    revenue: AmountOut
    orders: int
    average: Annotated[Decimal | None, Meta(description="Of an order; null without orders.")]
    growth: Annotated[
        Decimal | None,
        Meta(
            description="Of revenue against the period before: 0.25 is a quarter more. Null if "
            "there was none."
        ),
    ]


class SalesTotalOut(msgspec.Struct, frozen=True, gc=False):
    """All periods together."""

    revenue: AmountOut
    orders: int
    average: Decimal | None


class SalesOut(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Consecutive periods, oldest first."""

    as_of: Annotated[
        Moment, Meta(description="Every order that was in PostgreSQL at this moment is counted.")
    ]
    by: Literal["hour", "day", "month"]
    tz: str
    rows: list[PeriodOut]
    total: SalesTotalOut
    product: Annotated[str | None, Meta(description="If one was asked for.")] = None


class ProductSalesOut(msgspec.Struct, frozen=True, gc=False):
    """Sales of one product."""

    product_name: str
    revenue: AmountOut
    orders: int
    average: Decimal | None


class TopProductsOut(msgspec.Struct, frozen=True, gc=False, rename={"first": "from", "end": "to"}):
    """Products by revenue, highest first; of UTC days, the last of which is the one before `to`."""

    as_of: Moment
    first: date
    end: date
    products: list[ProductSalesOut]


class RefreshedOut(msgspec.Struct, frozen=True, gc=False):
    """The view was refreshed and is exact for this moment."""

    refreshed_at: Moment


StageName = Literal["decode", "persist", "index"]


class DeadLetterOut(msgspec.Struct, frozen=True, gc=False):
    """A dead letter without its payload."""

    id: int
    order_id: Annotated[UUID | None, Meta(description="Null if the payload names none.")]
    unit_id: Annotated[UUID | None, Meta(description="The bulk's id, or the order's own.")]
    stage: StageName
    reason: str
    attempts: Annotated[int, Meta(description="How often it was tried in vain.")]
    first_at: Moment
    last_at: Moment


class WholeDeadLetterOut(DeadLetterOut, frozen=True, gc=False):
    """A dead letter with its payload: the item of a message as it came."""

    payload: Annotated[str | None, Meta(description="Null if it is no UTF-8.")]
    payload_base64: Annotated[str | None, Meta(description="Only if it is no UTF-8.")]


class DeadLetterGroupOut(msgspec.Struct, frozen=True, gc=False):
    """Dead letters of one stage whose reasons differ in ids and positions only."""

    stage: StageName
    reason: str
    letters: int
    last_at: Moment


class DeadLetterPageOut(msgspec.Struct, omit_defaults=True):
    """Dead letters, the latest first; on the first page also how many there are of which kind."""

    letters: list[DeadLetterOut]
    total: int | None = None
    groups: Annotated[
        list[DeadLetterGroupOut] | None, Meta(description="The largest first, at most 100.")
    ] = None
    next: Annotated[str | None, Meta(description="Path of the next page; absent on the last.")] = (
        None
    )
    next_cursor: str | None = None


class DeadLetterChoiceIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters are meant: those that match every given filter, or all, by that word."""

    all: bool = False
    reason: Annotated[
        str | None,
        Meta(
            description="Text that the reason holds, in upper or lower case.",
            extra_json_schema={"minLength": 1, "maxLength": 200, "pattern": r"^[^\x00]*$"},
        ),
    ] = None
    stage: StageName | None = None
    order_id: UUID | None = None
    unit_id: UUID | None = None
    since: Annotated[Moment | None, Meta(description="Tried in vain at this moment or later.")] = (
        None
    )
    until: Annotated[Moment | None, Meta(description="And before this one.")] = None
    cursor: Annotated[
        str | None,
        Meta(
            description="`next_cursor` of the answer before, to go on.",
            extra_json_schema={"pattern": "^[0-9]{1,18}$"},
        ),
    ] = None


class KeptOut(msgspec.Struct, frozen=True, gc=False):
    """A dead letter that is still there, and why."""

    id: int
    order_id: UUID | None
    detail: str


class ActionOut(msgspec.Struct, frozen=True, gc=False):
    """What became of dead letters."""

    persisted: Annotated[int, Meta(description="The order is in the record.")]
    reindexed: Annotated[int, Meta(description="The order waits to be indexed again.")]
    discarded: int
    kept: Annotated[int, Meta(description="Still there.")]
    kept_letters: Annotated[list[KeptOut], Meta(description="The first 100 of these.")]
    next_cursor: Annotated[
        str | None,
        Meta(description="There are more: send the same body with this as `cursor`."),
    ]


class LiveOut(msgspec.Struct, frozen=True, gc=False):
    """The process runs."""

    status: Literal["alive"] = "alive"


class StoreOut(msgspec.Struct, frozen=True, gc=False):
    """What one store says of itself, or why it says nothing."""

    up: bool
    version: str | None = None
    warnings: Annotated[
        list[str], Meta(description="Settings of the store that would break a promise.")
    ] = []
    error: str | None = None


class ReadyOut(msgspec.Struct, frozen=True, gc=False):
    """Whether orders can be accepted, and what is missing."""

    status: Literal["ready", "not ready"]
    mode: Annotated[str, Meta(description="`normal`, or what is missing.", examples=["normal"])]
    stores: Annotated[
        dict[str, StoreOut] | UnsetType,
        Meta(
            description="By role: cache, queue, record, search. Only for clients with the scope "
            "`admin`."
        ),
    ] = UNSET


class FiguresOut(msgspec.Struct, frozen=True, gc=False):
    """The whole system at one moment; null is what a store that is away would have said."""

    at: Moment
    accepted: Annotated[int | None, Meta(description="Orders persisted or dirty.")]
    persisted: Annotated[int | None, Meta(description="Orders in the record.")]
    indexed: Annotated[int | None, Meta(description="Orders in the record that are searchable.")]
    accepted_per_second: Annotated[float | None, Meta(description="Mean of the last 3 s.")]
    persisted_per_second: float | None
    indexed_per_second: float | None
    dirty: Annotated[int | None, Meta(description="Orders accepted and not yet persisted.")]
    dirty_age_seconds: Annotated[float | None, Meta(description="Of the oldest; 0 if none.")]
    queue_messages: Annotated[int | None, Meta(description="Messages that no worker holds.")]
    outbox: Annotated[int | None, Meta(description="Orders persisted and not yet searchable.")]
    outbox_age_seconds: float | None
    dead_letters: Annotated[int | None, Meta(description="1001 stands for more than 1000.")]
    latest_dead_letter: int | None
    view_refreshed_at: Moment | None
    cold: Annotated[
        bool | None,
        Meta(description="While true, an id that is not found is answered 503 and not 404."),
    ]
