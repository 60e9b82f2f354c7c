"""From a query's words to the best documents: the ranking of `domain.text` in tantivy's terms.

Most searches end after two steps: count what matches, and take the best of what matches with every
word exactly, which is an intersection of term lists (1 ms among 1.5 million orders, where ranking
everything that matches takes 5 to 60). Only if these are too few is everything ranked.

tantivy breaks ties of a score by the place of a document in the index, which changes with every
merge. So a level of equal ranks is asked for again, sorted by column.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tantivy import DocAddress, FieldType, Occur, Order, Query, Schema, Searcher, SearchResult

from polyglot_persistence.adapters.tantivy.documents import TIE_FIELDS
from polyglot_persistence.domain.text import QueryWord, Ranking


class Match(NamedTuple):
    """A document that matches, with its rank."""

    address: DocAddress
    rank: float


class Matches(NamedTuple):
    """The best matches, in no order, and how many there are in all."""

    total: int
    best: Sequence[Match]


class WordQuery:
    """A parsed query with at least one word, against one schema."""

    def __init__(self, schema: Schema, words: Sequence[QueryWord]) -> None:
        self._schema = schema
        self._ranking = Ranking(len(words))
        self._exact = [
            Query.term_query(schema, "stems", word.stem, index_option="basic") for word in words
        ]
        self._prefix = [self._longer_than(word) for word in words]
        self._typo = [self._misspelt(word) for word in words]

    def best(self, searcher: Searcher, hits_max: int) -> Matches:
        """Return the `hits_max` best matches: by rank, then by the tie fields, descending."""
        every_word = len(self._exact)
        best = self._level(searcher, every_word, every_word, hits_max)
        if len(best) < hits_max:
            return self._ranked(searcher, hits_max)
        everything = _all_of(*(Query.const_score_query(query, 0.0) for query in self._any()))
        return Matches(_count(searcher.search(everything, limit=1)), best)

    def _any(self) -> Sequence[Query]:
        return [
            _any_of(exact, *prefix, *typo)
            for exact, prefix, typo in zip(self._exact, self._prefix, self._typo, strict=True)
        ]

    def _unmisspelt(self) -> Sequence[Query]:
        return [
            _any_of(exact, *prefix) for exact, prefix in zip(self._exact, self._prefix, strict=True)
        ]

    def _ranked(self, searcher: Searcher, hits_max: int) -> Matches:
        by_prefix = float(self._ranking.unmisspelt)
        by_all = by_prefix + self._ranking.exact
        words = [
            Query.disjunction_max_query(
                [
                    Query.const_score_query(exact, by_all),
                    *(Query.const_score_query(query, by_prefix) for query in prefix),
                    *(Query.const_score_query(query, 0.0) for query in typo),
                ]
            )
            for exact, prefix, typo in zip(self._exact, self._prefix, self._typo, strict=True)
        ]
        found = searcher.search(_all_of(*words), limit=hits_max)
        total = _count(found)
        matches = [Match(address, rank) for rank, address in found.hits]
        if total <= hits_max:
            return Matches(total, matches)
        lowest = matches[-1].rank  # all above it are here; of the lowest there may be better ones
        above = [match for match in matches if match.rank > lowest]
        level = self._level(searcher, *self._ranking.parts(lowest), hits_max - len(above))
        return Matches(total, above + level)

    def _level(self, searcher: Searcher, unmisspelt: int, exact: int, hits_max: int) -> list[Match]:
        """Return the first of those that match with exactly so many words unmisspelt and exact."""
        words = len(self._exact)
        if exact == words:
            query = _all_of(*self._exact)
        else:
            query = Query.boolean_query(
                [
                    *((Occur.Must, query) for query in self._any()),
                    *_count_of(self._unmisspelt(), unmisspelt),
                    *_count_of(self._exact, exact),
                ]
            )
        rank = unmisspelt * self._ranking.unmisspelt + exact * self._ranking.exact
        return [Match(address, rank) for address in self._first(searcher, query, hits_max)]

    def _first(self, searcher: Searcher, query: Query, hits_max: int) -> Sequence[DocAddress]:
        """Return the first documents by the tie fields, descending, however many are tied."""
        first: list[DocAddress] = []
        for field in TIE_FIELDS:
            room = hits_max - len(first)
            hits = searcher.search(
                query, limit=room + 1, count=False, order_by_field=field, order=Order.Desc
            ).hits
            if len(hits) <= room or hits[room - 1][0] != hits[room][0]:
                return first + [address for _, address in hits[:room]]
            tied = hits[room][0]
            first += [address for value, address in hits if value > tied]
            same = Query.range_query(self._schema, field, FieldType.Integer, tied, tied)
            query = _all_of(query, same)
        return first  # never reached: the last field tells any two ids apart

    def _longer_than(self, word: QueryWord) -> Sequence[Query]:
        # Not the prefix itself: what equals it matches exactly, and a term list is read faster
        # than the same documents are gathered for a pattern.
        return [
            Query.regex_query(self._schema, "words", re.escape(prefix) + ".+")
            for prefix in word.prefixes
        ]

    def _misspelt(self, word: QueryWord) -> Sequence[Query]:
        if not word.typos_max:
            return []
        distance = word.typos_max
        return [Query.fuzzy_term_query(self._schema, "stems", word.stem, distance=distance)]


def _count(found: SearchResult) -> int:
    count: int = found.count  # type: ignore[attr-defined]  # missing in the stub
    return count


def _any_of(*queries: Query) -> Query:
    return Query.boolean_query([(Occur.Should, query) for query in queries])


def _all_of(*queries: Query) -> Query:
    return Query.boolean_query([(Occur.Must, query) for query in queries])


def _count_of(queries: Sequence[Query], count: int) -> list[tuple[Occur, Query]]:
    """Return the conditions that exactly `count` of the queries match."""
    choices = [(Occur.Should, query) for query in queries]
    conditions = []
    if count > 0:
        at_least = Query.boolean_query(choices, minimum_number_should_match=count)
        conditions.append((Occur.Must, at_least))
    if count < len(queries):
        more = Query.boolean_query(choices, minimum_number_should_match=count + 1)
        conditions.append((Occur.MustNot, more))
    return conditions
