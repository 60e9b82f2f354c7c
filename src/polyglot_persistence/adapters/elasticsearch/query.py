"""The ranking of `domain.text` in Elasticsearch's terms.

Every clause has a constant score, so that a score is the rank and nothing of the engine's own; the
rewrite of typos is set, so that all words within reach count and not the likeliest fifty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from polyglot_persistence.domain.text import QueryWord, Ranking

SORT = [{"_score": "desc"}, {"tie_key": "desc"}, {"id": "desc"}]


def query_of(words: Sequence[QueryWord]) -> Mapping[str, Any]:
    """Return the query that finds what every word matches, scored by rank."""
    ranking = Ranking(len(words))
    return {"bool": {"must": [_word(word, ranking) for word in words]}}


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
