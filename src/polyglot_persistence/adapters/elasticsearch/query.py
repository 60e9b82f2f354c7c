"""The questions of `domain.search`, and the ranking of `domain.text`, in Elasticsearch's terms.

Every clause has a constant score, so that a score is the rank and nothing of the engine's own; the
rewrite of typos is set, so that all words within reach count and not the likeliest fifty.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from polyglot_persistence.adapters.elasticsearch.documents import COLUMNS
from polyglot_persistence.domain.search import (
    DAYS_MAX,
    NAMES_MAX,
    PRICE_BOUNDS_CENTS,
    Bounds,
    DayOrders,
    Facets,
    NameOrders,
    SearchQuery,
    Sort,
    price_range,
)
from polyglot_persistence.domain.text import QueryWord, Ranking

COUNTED_ORDERS_MAX = 10_000
"""Of more, a total says "at least" so many, as Elasticsearch does by default."""

_SORTS = {
    Sort.RELEVANCE: ("_score", "tie_key", "id"),
    Sort.NEWEST: ("created_micros", "id"),
    Sort.AMOUNT: ("amount_cents", "created_micros", "id"),
}


def pages_of(query: SearchQuery) -> Iterator[Mapping[str, Any]]:
    """Yield searches whose first that fills a page has it; the last has it anyway.

    A page of matches with every word exactly comes out of lists of terms in the order of a column,
    so that most of them are passed over. Only if they are too few, or the page
    stands beyond them, is everything that matches ranked.
    """
    after = query.after
    place: Sequence[int | str] | None = after and [*after.keys, str(after.order_id)]
    if query.sort is not Sort.RELEVANCE or not query.words:
        yield _page(query, _matching(query), _SORTS[query.sort], place)
        return
    if after is None or after.keys[0] == Ranking(len(query.words)).rank_max:
        exact = [{"term": {"stems": word.stem}} for word in query.words]
        rest = place and place[1:]
        yield _page(query, _all_of(*exact, *_within(query.bounds)), _SORTS[query.sort][1:], rest)
    ranked = {"bool": {"must": words_of(query.words), "filter": _within(query.bounds)}}
    yield _page(query, ranked, _SORTS[query.sort], place)


def _page(
    query: SearchQuery,
    matching: Mapping[str, Any],
    fields: Sequence[str],
    place: Sequence[int | str] | None,
) -> Mapping[str, Any]:
    page = {
        "query": matching,
        "sort": [{field: "desc"} for field in fields],
        "size": query.hits_max,
        "track_total_hits": False,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": COLUMNS,
    }
    return page if place is None else {**page, "search_after": place}


def summary_of(query: SearchQuery) -> Mapping[str, Any]:
    """Return the search that counts what matches, on whatever page.

    Up to a bound, unless all are counted anyway; so the cluster can remember the answer.
    """
    summary = {"query": _matching(query), "size": 0}
    if query.facets:
        return {**summary, "track_total_hits": True, "aggregations": FACETS}
    everything = query.words is None and query.bounds == Bounds()
    return {**summary, "track_total_hits": everything or COUNTED_ORDERS_MAX}


def _matching(query: SearchQuery) -> Mapping[str, Any]:
    return _all_of(*words_of(query.words or ()), *_within(query.bounds))


def _all_of(*conditions: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"bool": {"filter": conditions}} if conditions else {"match_all": {}}


def words_of(words: Sequence[QueryWord]) -> list[Mapping[str, Any]]:
    """Return a condition for each word."""
    ranking = Ranking(len(words))
    return [_word(word, ranking) for word in words]


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
