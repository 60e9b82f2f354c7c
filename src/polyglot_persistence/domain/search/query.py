"""What can be asked of a search, and where in an answer a hit stands.

An answer is ordered by whole numbers and at last by id, all descending, so that a position says
which hits come after it, whatever has been indexed since:

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
"""Of more, a total says "at least" so many: counting on costs an engine more than the page does.
Nobody turns so many pages; and whoever wants to know asks for facets, which count everything."""

PRICE_BOUNDS_CENTS = (0, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)
"""Where the price ranges of an answer begin; each ends where the next begins, the last nowhere."""


class Sort(enum.Enum):
    """What comes first."""

    RELEVANCE = "relevance"
    NEWEST = "newest"
    AMOUNT = "amount"


class Bounds(NamedTuple):
    """Which orders count, whatever they are called; both ends are within."""

    micros_min: int | None = None
    """`created_at`, in microseconds since 1970."""
    micros_max: int | None = None
    cents_min: int | None = None
    cents_max: int | None = None


class Position(NamedTuple):
    """The place of a hit in an answer: what it is ordered by."""

    keys: tuple[int, ...]
    order_id: UUID


class SearchQuery(NamedTuple):
    """One question to a search index."""

    words: tuple[QueryWord, ...] | None
    """All have to match; none at all match nothing. None: every order, whatever its name."""
    hits_max: int
    sort: Sort = Sort.RELEVANCE
    bounds: Bounds = Bounds()
    after: Position | None = None
    """Only hits that stand after it are returned; total and facets do not depend on it."""
    facets: bool = False


class PriceRange(NamedTuple):
    """Orders from one amount up to, and without, another; None: however much."""

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
    """What matched, counted."""

    prices: Sequence[PriceRange]
    """Those that have orders, the cheapest first."""
    days: Sequence[DayOrders]
    """The latest that have orders, `DAYS_MAX` at most."""
    names: Sequence[NameOrders]
    """The most ordered, `NAMES_MAX` at most."""


def price_range(place: int, orders: int) -> PriceRange:
    """Return the range that begins with a place of `PRICE_BOUNDS_CENTS`."""
    above = PRICE_BOUNDS_CENTS[place + 1 :]
    return PriceRange(PRICE_BOUNDS_CENTS[place], above[0] if above else None, orders)


def position(order: Order, rank: int, sort: Sort) -> Position:
    """Return where an order stands that matches with a rank."""
    micros = to_micros(order.created_at)
    if sort is Sort.NEWEST:
        return Position((micros,), order.id)
    if sort is Sort.AMOUNT:
        return Position((int(order.amount.scaleb(2)), micros), order.id)
    return Position((rank, micros), order.id)
