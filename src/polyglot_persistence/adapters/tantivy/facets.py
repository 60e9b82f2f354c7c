"""Counts of the matches, by tantivy's aggregations."""

from collections.abc import Mapping, Sequence
from typing import Any

from tantivy import Query, Searcher

from polyglot_persistence.domain.order import from_micros
from polyglot_persistence.domain.search.query import (
    DAYS_MAX,
    NAMES_MAX,
    PRICE_BOUNDS_CENTS,
    DayOrders,
    Facets,
    NameOrders,
    price_range,
)

_DAY_MICROS = 86_400_000_000

_RANGES = [
    {"from": float(low)} if high is None else {"from": float(low), "to": float(high)}
    for low, high in zip(PRICE_BOUNDS_CENTS, (*PRICE_BOUNDS_CENTS[1:], None), strict=True)
]


def _most_ordered(names_max: int) -> Mapping[str, Any]:
    terms = {"field": "name", "size": names_max, "order": {"_count": "desc"}}
    return {"terms": terms}  # ties in the order of the column, that is by name


_DAY = {"field": "created", "interval": float(_DAY_MICROS), "order": "desc"}

_FACETS = {
    "prices": {"range": {"field": "cents", "ranges": _RANGES}},
    # Keeps no more days than it returns: an engine refuses more than 65,000 buckets.
    "days": {"composite": {"size": DAYS_MAX, "sources": [{"day": {"histogram": _DAY}}]}},
    "names": _most_ordered(NAMES_MAX),
}


def facets_of(searcher: Searcher, query: Query) -> Facets:
    """Return the counts of a query's matches."""
    found = searcher.aggregate(query, _FACETS)
    prices = {
        int(cell["from"]): cell["doc_count"]
        for cell in found["prices"]["buckets"]
        if "from" in cell  # tantivy adds a range below the first
    }
    return Facets(
        [
            price_range(place, prices[low])
            for place, low in enumerate(PRICE_BOUNDS_CENTS)
            if prices.get(low)
        ],
        [
            DayOrders(from_micros(int(cell["key"]["day"])).date(), cell["doc_count"])
            for cell in found["days"]["buckets"]
        ],
        _names(found["names"]),
    )


def most_ordered(searcher: Searcher, query: Query, names_max: int) -> Sequence[NameOrders]:
    """Return the names with the most matching orders, ties by name."""
    return _names(searcher.aggregate(query, {"names": _most_ordered(names_max)})["names"])


def _names(found: Mapping[str, Any]) -> Sequence[NameOrders]:
    return [NameOrders(cell["key"], cell["doc_count"]) for cell in found["buckets"]]
