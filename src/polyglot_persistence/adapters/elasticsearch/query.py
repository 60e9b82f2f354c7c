"""Translates the queries of `domain.search`, and `domain.ranking`, into Elasticsearch's.

Every clause has a constant score, so that a score is the rank and contains nothing of the engine's
own. The rewrite of typos is set, so that more words within reach count than the nearest fifty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from polyglot_persistence.adapters.elasticsearch.documents import COLUMNS
from polyglot_persistence.domain.order import from_micros
from polyglot_persistence.domain.search.query import (
    COUNTED_ORDERS_MAX,
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
from polyglot_persistence.domain.search.ranking import Ranking, Tier
from polyglot_persistence.domain.search.terms import QueryWord

Search = Mapping[str, Any]
"""The body of a search request."""

TYPOS_FOUND_MAX = 960
"""Words of the index within reach of all words of a query together, the nearest first: more would
exceed the clauses that a small cluster allows (1,024)."""

_COUNTED_MAX = COUNTED_ORDERS_MAX + 1
"""Elasticsearch stops at this many and then does not report whether there are more: a search that
has reached its limit begins no further segment (`PartialHitCountCollector`)."""

_SORTS = {
    Sort.RELEVANCE: ("_score", "created_micros", "id"),
    Sort.NEWEST: ("created_micros", "id"),
    Sort.AMOUNT: ("amount_cents", "created_micros", "id"),
}


def exact_page_of(query: SearchQuery) -> Search | None:
    """Return the search for matches with every word exact; None if these do not come first.

    It reads lists of terms in the order of a column and skips most of them. Most searches need no
    more than this.
    """
    after = query.after
    if query.sort is not Sort.RELEVANCE or not query.words:
        return None
    if after is not None and after.keys[0] != Ranking(len(query.words)).rank_max:
        return None
    exact = [_exact(word) for word in query.words]
    matching = _all_of(*exact, *_within(query.bounds))
    return _page(query, matching, _SORTS[Sort.NEWEST], _place(query)[1:])


def page_of(query: SearchQuery) -> Search:
    """Return the search for a page of all matches."""
    if query.sort is Sort.RELEVANCE and query.words:
        ranked = {"bool": {"must": words_of(query.words), "filter": _within(query.bounds)}}
        return _page(query, ranked, _SORTS[query.sort], _place(query))
    return _page(query, _matching(query), _SORTS[query.sort], _place(query))


def _place(query: SearchQuery) -> Sequence[int | str]:
    return [*query.after.keys, str(query.after.order_id)] if query.after else []


def _page(
    query: SearchQuery,
    matching: Mapping[str, Any],
    fields: Sequence[str],
    place: Sequence[int | str],
) -> Search:
    page = {
        "query": matching,
        "sort": [{field: "desc"} for field in fields],
        "size": query.hits_max,
        "track_total_hits": _COUNTED_MAX,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": COLUMNS,
    }
    return {**page, "search_after": place} if place else page


def is_counted_all(query: SearchQuery) -> bool:
    """Return whether the total is exact for any number of matches, at no extra cost."""
    return query.facets or (query.words is None and query.bounds == Bounds())


def summary_of(query: SearchQuery) -> Search:
    """Return the search that counts the matches, for any page."""
    summary = {
        "query": _matching(query),
        "size": 0,
        "track_total_hits": is_counted_all(query) or _COUNTED_MAX,
    }
    return {**summary, "aggregations": FACETS} if query.facets else summary


def _matching(query: SearchQuery) -> Mapping[str, Any]:
    return _all_of(*words_of(query.words or ()), *_within(query.bounds))


def _all_of(*conditions: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"bool": {"filter": conditions}} if conditions else {"match_all": {}}


def words_of(words: Sequence[QueryWord]) -> list[Mapping[str, Any]]:
    """Return a condition for each word."""
    ranking = Ranking(len(words))
    typos_found_max = TYPOS_FOUND_MAX // max(1, len(words))
    return [_word(word, ranking, typos_found_max) for word in words]


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


def _exact(word: QueryWord) -> Mapping[str, Any]:
    if len(word.exact) == 1:
        return {"term": {"stems": word.stem}}
    return {"terms": {"stems": word.exact}}


def _word(word: QueryWord, ranking: Ranking, typos_found_max: int) -> Mapping[str, Any]:
    weights = ranking.weights
    ways = [
        _scored(_exact(word), weights[Tier.EXACT]),
        *(_scored(_begins("words", one), weights[Tier.BEGINNING]) for one in word.prefixes),
        *(_scored(_begins("parts", one), weights[Tier.PART]) for one in word.parts),
    ]
    if word.typos_max:
        typo = {
            "value": word.stem,
            "fuzziness": word.typos_max,
            "transpositions": True,
            # Finds the words once; "constant_score" repeats it for each segment, which costs more
            # than the rest of a search.
            "rewrite": f"top_terms_boost_{typos_found_max}",
        }
        ways.append(_scored({"fuzzy": {"stems": typo}}, weights[Tier.TYPO]))
    return {"dis_max": {"queries": ways}}


def _begins(field: str, beginning: str) -> Mapping[str, Any]:
    return {"prefix": {field: {"value": beginning}}}


def _scored(query: Mapping[str, Any], score: float) -> Mapping[str, Any]:
    return {"constant_score": {"filter": query, "boost": score}}


def most_ordered(names_max: int) -> Mapping[str, Any]:
    """Return the aggregation of the names with the most orders, ties by name."""
    order = [{"_count": "desc"}, {"_key": "asc"}]
    return {"terms": {"field": "product_name", "size": names_max, "order": order}}


def names_in(aggregation: Mapping[str, Any]) -> Sequence[NameOrders]:
    """Return the result of `most_ordered`."""
    return [NameOrders(cell["key"], cell["doc_count"]) for cell in aggregation["buckets"]]


_RANGES = [
    {"from": low} if high is None else {"from": low, "to": high}
    for low, high in zip(PRICE_BOUNDS_CENTS, (*PRICE_BOUNDS_CENTS[1:], None), strict=True)
]

_DAY = {"field": "created_at", "fixed_interval": "1d", "order": "desc"}

FACETS: Mapping[str, Any] = {
    "prices": {"range": {"field": "amount_cents", "ranges": _RANGES}},
    # Keeps no more days than it returns: an engine refuses more than 65,536 buckets.
    "days": {"composite": {"size": DAYS_MAX, "sources": [{"day": {"date_histogram": _DAY}}]}},
    "names": most_ordered(NAMES_MAX),
}


def facets_in(aggregations: Mapping[str, Any]) -> Facets:
    """Return the result of `FACETS`."""
    prices = [cell["doc_count"] for cell in aggregations["prices"]["buckets"]]
    return Facets(
        [price_range(place, orders) for place, orders in enumerate(prices) if orders],
        [
            DayOrders(from_micros(cell["key"]["day"] * 1_000).date(), cell["doc_count"])
            for cell in aggregations["days"]["buckets"]
        ],
        names_in(aggregations["names"]),
    )
