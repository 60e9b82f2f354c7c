"""The query strings and the JSON of search, as types that parse, encode and describe them."""

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from polyglot_persistence.api.web import queries as q
from polyglot_persistence.api.web.schemas import AmountOut, Moment, NextPage
from polyglot_persistence.domain.order import parse_amount, to_micros
from polyglot_persistence.domain.search.query import DAYS_MAX, NAMES_MAX, Bounds, SearchQuery, Sort
from polyglot_persistence.domain.search.terms import parse_query

QUERY_CHARACTERS_MAX = 200
"""As long as a product name: a longer query cannot match better."""
HITS_MAX = 100
SUGGESTIONS_MAX = 20


def _text(description: str, *, required: bool = False) -> q.QueryParameter[str]:
    """Return a parameter that is a text; empty if it is not required."""

    def parse(text: str) -> str:
        text = text.strip()
        if len(text) > QUERY_CHARACTERS_MAX or not (text or not required):
            raise ValueError(text)
        return text

    schema = {
        "type": "string",
        "minLength": 1,
        "maxLength": QUERY_CHARACTERS_MAX,
        "pattern": r"\S",
        "examples": ["laptop"],
    }
    rule = f"must have 1 to {QUERY_CHARACTERS_MAX} characters"
    return q.QueryParameter(description, schema, parse, "", rule, "q", required)


def _cents(name: str, description: str) -> q.QueryParameter[int | None]:
    """Return a parameter that is an amount, as cents."""

    def parse(text: str) -> int:
        return int(parse_amount(text, name).scaleb(2))

    pattern = r"^[0-9]{1,10}(\.[0-9]{1,2})?$"
    schema = {"type": "string", "pattern": pattern, "examples": ["10.00"]}
    return q.QueryParameter(description, schema, parse, None, name=name)


class SearchParameters(q.QueryParameters):
    """A search and its page."""

    text = _text("Words of product names.")
    since = q.moment(
        "Orders created at or after this moment; a date is its beginning in UTC.", name="from"
    )
    until = q.moment(
        "Orders created before this moment; a date is its beginning in UTC.", name="to"
    )
    low = _cents("min", "Orders of this amount or more.")
    high = _cents("max", "Orders of this amount or less.")
    sort = q.choice(
        "Order of the hits. Default: relevance, and without `q` newest.",
        {one.value: one for one in Sort},
        None,
    )
    facets = q.flag(
        f"Count all matches by price, by day (the latest {DAYS_MAX}) and by name (the "
        f"{NAMES_MAX} most ordered)."
    )
    limit = q.count("Maximum number of hits.", 20, cap=HITS_MAX)
    cursor = q.cursor(str)

    def broken_rules(self) -> Iterator[str]:
        """Yield the rules between parameters that are broken."""
        if not self.text and self.sort is None and self.bounds == Bounds():
            yield "q is missing or empty, and so are all others"
        if not self.text and self.sort is Sort.RELEVANCE:
            yield "sort can be relevance only if q is given"
        if self.since is not None and self.until is not None and self.since >= self.until:
            yield "from must be before to"
        if self.low is not None and self.high is not None and self.low > self.high:
            yield "min must not be above max"

    @property
    def bounds(self) -> Bounds:
        """The bounds of time and amount."""
        return Bounds(
            None if self.since is None else to_micros(self.since),
            None if self.until is None else to_micros(self.until) - 1,
            self.low,
            self.high,
        )

    def first_page(self) -> SearchQuery:
        """Return the search for its first page."""
        default = Sort.RELEVANCE if self.text else Sort.NEWEST
        return SearchQuery(
            parse_query(self.text) if self.text else None,
            self.limit,
            self.sort or default,
            self.bounds,
            facets=self.facets,
        )


class SuggestParameters(q.QueryParameters):
    """A text to complete."""

    text = _text("The text typed so far.", required=True)
    limit = q.count("Maximum number of names.", 10, cap=SUGGESTIONS_MAX)


class HitOut(msgspec.Struct, frozen=True, gc=False):
    """An order whose name matches."""

    id: UUID
    product_name: str
    highlighted: Annotated[
        str, Meta(description="The name as safe HTML; matches are within `<mark>`.")
    ]
    amount: AmountOut
    created_at: Moment
    score: Annotated[float, Meta(description="At most 1: every word matches exactly.")]


class PriceRangeOut(msgspec.Struct, frozen=True, gc=False, rename={"low": "from", "high": "to"}):
    """Number of orders with an amount from `from` up to, but not including, `to`."""

    low: AmountOut
    high: Annotated[AmountOut | None, Meta(description="Null: no upper bound.")]
    orders: int


class DayOrdersOut(msgspec.Struct, frozen=True, gc=False):
    """Number of orders of a UTC day."""

    day: date
    orders: int


class NameOrdersOut(msgspec.Struct, frozen=True, gc=False):
    """Number of orders with a product name."""

    product_name: str
    orders: int


class FacetsOut(msgspec.Struct, frozen=True, gc=False):
    """Counts of all matches; groups without orders are not listed."""

    prices: Annotated[list[PriceRangeOut], Meta(description="The cheapest first.")]
    days: Annotated[list[DayOrdersOut], Meta(description="The latest.")]
    products: Annotated[list[NameOrdersOut], Meta(description="The most ordered.")]


class SearchOut(msgspec.Struct, gc=False, omit_defaults=True):
    """A page of matches, and their total."""

    total: int
    total_is: Literal["exact", "at_least"]
    hits: list[HitOut]
    did_you_mean: Annotated[
        str | None, Meta(description="Other words that match something, if `q` matches nothing.")
    ]
    took_ms: float
    facets: Annotated[FacetsOut | None, Meta(description="Only with `facets=true`.")] = None
    next: NextPage = None
    next_cursor: str | None = None


class SuggestionOut(msgspec.Struct, frozen=True, gc=False):
    """A product name that completes the text."""

    product_name: str
    highlighted: str


class SuggestionsOut(msgspec.Struct, frozen=True, gc=False):
    """The most ordered names that complete the text."""

    suggestions: list[SuggestionOut]
    took_ms: float
