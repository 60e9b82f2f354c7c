"""The JSON of search, as types that encode and describe it."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from polyglot_persistence.api.web.schemas import AmountOut, Moment, NextPage


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
    next: NextPage = None
    next_cursor: str | None = None


class SuggestionOut(msgspec.Struct, frozen=True, gc=False):
    """A product name that completes what was typed."""

    product_name: str
    highlighted: str


class SuggestionsOut(msgspec.Struct, frozen=True, gc=False):
    """The most ordered of the names that complete what was typed."""

    suggestions: list[SuggestionOut]
    took_ms: float
