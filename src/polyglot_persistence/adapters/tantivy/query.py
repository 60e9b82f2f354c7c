"""From a query's words to the best documents: the ranking of `domain.text` in tantivy's terms.

Most searches end after two steps: count what matches, and take the best of what matches with every
word exactly, which is an intersection of term lists (1 ms among 1.5 million orders, where ranking
everything that matches takes 5 to 60). Only if these are too few is everything ranked.

tantivy breaks ties of a score by the place of a document in the index, which changes with every
merge. So a level of equal ranks is asked for again, sorted by column.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tantivy import DocAddress, FieldType, Occur, Order, Query, Schema, Searcher

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
        self._unmisspelt = [
            _any_of(self._exact[n], *self._prefixes(words[n])) for n in range(len(words))
        ]
        self._any = [
            _any_of(unmisspelt, self._misspelt(word)) if word.typos_max else unmisspelt
            for word, unmisspelt in zip(words, self._unmisspelt, strict=True)
        ]

    def best(self, searcher: Searcher, hits_max: int) -> Matches:
        """Return the `hits_max` best matches: by rank, then by the tie fields, descending."""
        everything = _all_of(*(Query.const_score_query(query, 0.0) for query in self._any))
        total: int = searcher.search(everything, limit=1).count  # type: ignore[attr-defined]
        every_word = len(self._exact)
        best = self._level(searcher, every_word, every_word, hits_max)
        if len(best) < min(hits_max, total):
            best = self._ranked(searcher, total, hits_max)
        return Matches(total, best)

    def _ranked(self, searcher: Searcher, total: int, hits_max: int) -> list[Match]:
        words = [
            Query.boolean_query(
                [
                    (Occur.Should, Query.const_score_query(anyhow, 0.0)),
                    (
                        Occur.Should,
                        Query.const_score_query(unmisspelt, float(self._ranking.unmisspelt)),
                    ),
                    (Occur.Should, Query.const_score_query(exact, float(self._ranking.exact))),
                ]
            )
            for anyhow, unmisspelt, exact in zip(
                self._any, self._unmisspelt, self._exact, strict=True
            )
        ]
        found = searcher.search(_all_of(*words), limit=hits_max, count=False).hits
        matches = [Match(address, rank) for rank, address in found]
        if total <= hits_max:
            return matches
        lowest = matches[-1].rank  # all above it are here; of the lowest there may be better ones
        above = [match for match in matches if match.rank > lowest]
        return above + self._level(searcher, *self._ranking.parts(lowest), hits_max - len(above))

    def _level(self, searcher: Searcher, unmisspelt: int, exact: int, hits_max: int) -> list[Match]:
        """Return the first of those that match with exactly so many words unmisspelt and exact."""
        words = len(self._exact)
        if exact == words:
            query = _all_of(*self._exact)
        else:
            query = Query.boolean_query(
                [
                    *((Occur.Must, query) for query in self._any),
                    *_count_of(self._unmisspelt, unmisspelt),
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

    def _prefixes(self, word: QueryWord) -> Sequence[Query]:
        return [
            Query.fuzzy_term_query(self._schema, "words", prefix, distance=0, prefix=True)
            for prefix in word.prefixes
        ]

    def _misspelt(self, word: QueryWord) -> Query:
        return Query.fuzzy_term_query(self._schema, "stems", word.stem, distance=word.typos_max)


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
