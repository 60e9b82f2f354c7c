"""Search queries, and the position of a hit in an answer.

An answer is ordered by whole numbers and finally by id, all descending. So a position determines
the hits that come after it, whatever has been indexed since:

    relevance   rank of the match (`ranking.Ranking`), created_at, id
    newest      created_at, id
    amount      cents, created_at, id
"""

import enum
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.domain.order import Order, to_micros
from polyglot_persistence.domain.search.terms import QueryWord

COUNTED_ORDERS_MAX = 1_000
"""Above this a total is "at least" this number: counting on costs an engine more than the page
does. Nobody pages that far; request facets for an exact count."""

PRICE_BOUNDS_CENTS = (0, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)
"""Lower bounds of the price ranges; each ends where the next begins, the last has no end."""


class Sort(enum.Enum):
    """The order of hits."""

    RELEVANCE = "relevance"
    NEWEST = "newest"
    AMOUNT = "amount"


class Bounds(NamedTuple):
    """Filters on orders besides the name; both ends are included."""

    micros_min: int | None = None
    """`created_at`, in microseconds since 1970."""
    micros_max: int | None = None
    cents_min: int | None = None
    cents_max: int | None = None


class Position(NamedTuple):
    """The position of a hit in an answer: its sort values."""

    keys: tuple[int, ...]
    order_id: UUID


class SearchQuery(NamedTuple):
    """One query to a search index."""

    words: tuple[QueryWord, ...] | None
    """All must match; an empty tuple matches nothing. None: every order, whatever its name."""
    hits_max: int
    sort: Sort = Sort.RELEVANCE
    bounds: Bounds = Bounds()
    after: Position | None = None
    """Only hits after it are returned; total and facets do not depend on it."""
    facets: bool = False


class PriceRange(NamedTuple):
    """Orders from one amount up to another, excluded; None: no upper bound."""

    cents_from: int
    cents_to: int | None
    orders: int


class DayOrders(NamedTuple):
    """Orders of a UTC day."""

    day: date
    orders: int


class NameOrders(NamedTuple):
    """Orders of one product name."""

    product_name: str
    orders: int


DAYS_MAX = 31
NAMES_MAX = 10


class Facets(NamedTuple):
    """Counts of the matches."""

    prices: Sequence[PriceRange]
    """Ranges that have orders, the cheapest first."""
    days: Sequence[DayOrders]
    """The latest days that have orders, at most `DAYS_MAX`."""
    names: Sequence[NameOrders]
    """The most ordered names, at most `NAMES_MAX`."""


def price_range(place: int, orders: int) -> PriceRange:
    """Return the range at an index of `PRICE_BOUNDS_CENTS`."""
    above = PRICE_BOUNDS_CENTS[place + 1 :]
    return PriceRange(PRICE_BOUNDS_CENTS[place], above[0] if above else None, orders)


def position(order: Order, rank: int, sort: Sort) -> Position:
    """Return the position of an order that matches with a rank."""
    micros = to_micros(order.created_at)
    if sort is Sort.NEWEST:
        return Position((micros,), order.id)
    if sort is Sort.AMOUNT:
        return Position((int(order.amount.scaleb(2)), micros), order.id)
    return Position((rank, micros), order.id)
