"""The questions of `domain.search`, and the ranking of `domain.text`, in Elasticsearch's terms.

Every clause has a constant score, so that a score is the rank and nothing of the engine's own; the
rewrite of typos is set, so that all words within reach count and not the likeliest fifty.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from polyglot_persistence.domain.search import (
    DAYS_MAX,
    NAMES_MAX,
    PRICE_BOUNDS_CENTS,
    Bounds,
    DayOrders,
    Facets,
    NameOrders,
    Position,
    SearchQuery,
    Sort,
    price_range,
)
from polyglot_persistence.domain.text import QueryWord, Ranking

_SORTS = {
    Sort.RELEVANCE: ("_score", "tie_key", "id"),
    Sort.NEWEST: ("created_micros", "id"),
    Sort.AMOUNT: ("amount_cents", "created_micros", "id"),
}


def query_of(query: SearchQuery) -> Mapping[str, Any]:
    """Return the query that finds what every word matches within the bounds, scored by rank."""
    must = [] if query.words is None else words_of(query.words)
    return {"bool": {"must": must or [_NO_WORDS], "filter": _within(query.bounds)}}


def exactly(query: SearchQuery) -> Mapping[str, Any]:
    """Return the query that finds what every word matches exactly."""
    terms = [{"term": {"stems": word.stem}} for word in query.words or ()]
    return {"bool": {"filter": [*terms, *_within(query.bounds)]}}


def unranked(query: SearchQuery) -> Mapping[str, Any]:
    """Return the query that finds what `query_of` finds, to be counted only."""
    return {"bool": {"filter": [*words_of(query.words or ()), *_within(query.bounds)]}}


_NO_WORDS = {"constant_score": {"filter": {"match_all": {}}, "boost": 0}}


def words_of(words: Sequence[QueryWord]) -> list[Mapping[str, Any]]:
    """Return a condition for each word."""
    ranking = Ranking(len(words))
    return [_word(word, ranking) for word in words]


def sort_of(sort: Sort) -> Sequence[Mapping[str, str]]:
    """Return what hits are ordered by."""
    return [{field: "desc"} for field in _SORTS[sort]]


BEST_FIRST = [{field: "desc"} for field in _SORTS[Sort.RELEVANCE][1:]]
"""The order of hits of the same rank."""


def after(position: Position | None) -> Sequence[int | str] | None:
    """Return the place in the order after which hits are wanted."""
    return None if position is None else [*position.keys, str(position.order_id)]


def _within(bounds: Bounds) -> list[Mapping[str, Any]]:
    limits = {
        "created_micros": (bounds.micros_min, bounds.micros_max),
        "amount_cents": (bounds.cents_min, bounds.cents_max),
    }
    return [
        {"range": {field: {"gte": low, "lte": high}}}
        for field, (low, high) in limits.items()
        if (low, high) != (None, None)
    ]


def _word(word: QueryWord, ranking: Ranking) -> Mapping[str, Any]:
    ways = [
        _scored({"term": {"stems": word.stem}}, ranking.unmisspelt + ranking.exact),
        *(_scored({"prefix": {"words": {"value": p}}}, ranking.unmisspelt) for p in word.prefixes),
    ]
    if word.typos_max:
        typo = {
            "value": word.stem,
            "fuzziness": word.typos_max,
            "transpositions": True,
            "rewrite": "constant_score",
        }
        ways.append(_scored({"fuzzy": {"stems": typo}}, 0))
    return {"dis_max": {"queries": ways}}


def _scored(query: Mapping[str, Any], score: float) -> Mapping[str, Any]:
    return {"constant_score": {"filter": query, "boost": score}}


def most_ordered(names_max: int) -> Mapping[str, Any]:
    """Return the aggregation of the names that most orders have, ties by name."""
    order = [{"_count": "desc"}, {"_key": "asc"}]
    return {"terms": {"field": "product_name", "size": names_max, "order": order}}


def names_in(aggregation: Mapping[str, Any]) -> Sequence[NameOrders]:
    """Return what `most_ordered` found."""
    return [NameOrders(cell["key"], cell["doc_count"]) for cell in aggregation["buckets"]]


_RANGES = [
    {"from": low} if high is None else {"from": low, "to": high}
    for low, high in zip(PRICE_BOUNDS_CENTS, (*PRICE_BOUNDS_CENTS[1:], None), strict=True)
]

FACETS: Mapping[str, Any] = {
    "prices": {"range": {"field": "amount_cents", "ranges": _RANGES}},
    "days": {
        "date_histogram": {
            "field": "created_at",
            "fixed_interval": "1d",
            "min_doc_count": 1,
            "order": {"_key": "desc"},
        }
    },
    "names": most_ordered(NAMES_MAX),
}


def facets_in(aggregations: Mapping[str, Any]) -> Facets:
    """Return what `FACETS` found."""
    prices = [cell["doc_count"] for cell in aggregations["prices"]["buckets"]]
    return Facets(
        [price_range(place, orders) for place, orders in enumerate(prices) if orders],
        [
            DayOrders(datetime.fromtimestamp(cell["key"] / 1_000, UTC).date(), cell["doc_count"])
            for cell in aggregations["days"]["buckets"][:DAYS_MAX]
        ],
        names_in(aggregations["names"]),
    )
