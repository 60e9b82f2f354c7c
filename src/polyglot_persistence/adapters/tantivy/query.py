"""Finds the best documents for a query: `domain.ranking` in tantivy's terms.

Most searches end after two steps: count the matches, and take the best of those with every word
exact, which is an intersection of term lists (1 ms among 1.5 million orders, while ranking all
matches takes 5 to 60). Only if these are too few is everything ranked.

tantivy breaks ties of a score by the place of a document in the index, which changes with every
merge. So documents of equal rank are fetched again, sorted by column.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from tantivy import DocAddress, FieldType, Occur, Order, Query, Schema, Searcher, SearchResult

from polyglot_persistence.adapters.tantivy.documents import halves, has_parts, source
from polyglot_persistence.domain.search.matching import rank_of
from polyglot_persistence.domain.search.query import COUNTED_ORDERS_MAX, Bounds, SearchQuery, Sort
from polyglot_persistence.domain.search.ranking import Ranking, Tier
from polyglot_persistence.domain.search.terms import QueryWord


class Match(NamedTuple):
    """A matching document, with its rank."""

    address: DocAddress
    rank: float


_FIELDS = {
    Sort.RELEVANCE: ("created", "id_high", "id_low"),  # within a rank
    Sort.NEWEST: ("created", "id_high", "id_low"),
    Sort.AMOUNT: ("cents", "created", "id_high", "id_low"),
}


class OrderQuery:
    """A query against one schema; if it has words, at least one."""

    def __init__(self, schema: Schema, query: SearchQuery) -> None:
        self._schema = schema
        self._query = query
        words = query.words or ()
        self._ranking = Ranking(len(words))
        self._has_parts = has_parts(schema)
        self._exact = [self._exactly(word) for word in words]
        self._ways = [
            {
                Tier.EXACT: [exact],
                Tier.BEGINNING: self._beginning_with(word),
                Tier.PART: self._having_within(word),
                Tier.TYPO: self._misspelt(word),
            }
            for exact, word in zip(self._exact, words, strict=True)
        ]
        self._bounds = self._within(query.bounds)

    @property
    def everything(self) -> Query:
        """The query for all matches."""
        return _all_of(
            *(Query.const_score_query(query, 0.0) for query in self._matching(Tier.TYPO)),
            *self._bounds,
        )

    @property
    def is_counted_all(self) -> bool:
        """Whether the total is exact for any number of matches, at no extra cost."""
        return self._query.facets or not (self._exact or self._bounds)

    def count(self, searcher: Searcher) -> int:
        """Return the number of matches, before and after the page.

        Above `COUNTED_ORDERS_MAX` it is any number above it, unless all are counted.
        """
        if not self._exact and not self._bounds:
            return searcher.num_docs
        if self._exact and not self._query.facets:
            exact = _count(searcher.search(_all_of(*self._exact, *self._bounds), limit=1))
            if exact > COUNTED_ORDERS_MAX:
                return exact
        return _count(searcher.search(self.everything, limit=1))

    def page(self, searcher: Searcher) -> Sequence[Match]:
        """Return the first `hits_max` matches after the position, unordered."""
        sort, after, hits_max = self._query.sort, self._query.after, self._query.hits_max
        if not self._exact or sort is not Sort.RELEVANCE:
            keys = after and self._keys(after.keys, after.order_id)
            found = self._first(searcher, self.everything, hits_max, keys)
            ranks = [0.0] * len(found) if not self._exact else self._ranks(searcher, found)
            return [Match(address, rank) for address, rank in zip(found, ranks, strict=True)]
        if after is None:
            best = self._level(searcher, self._ranking.rank_max, hits_max)
            return best if len(best) == hits_max else self._ranked(searcher, hits_max)
        rank, *keys_of_level = after.keys
        keys = self._keys(keys_of_level, after.order_id)
        rest = self._level(searcher, rank, hits_max, keys)
        if len(rest) == hits_max:
            return rest
        return [*rest, *self._ranked(searcher, hits_max - len(rest), below=rank)]

    def _keys(self, keys: Sequence[int], order_id: UUID) -> Sequence[int]:
        return [*keys, *halves(order_id)]

    def _matching(self, tier: Tier) -> Sequence[Query]:
        """Return for each word its matches in a tier, or in a better one."""
        return [
            _any_of(*(query for way, queries in ways.items() if way >= tier for query in queries))
            for ways in self._ways
        ]

    def _ranked(
        self, searcher: Searcher, hits_max: int, *, below: int | None = None
    ) -> Sequence[Match]:
        """Return the best of all matches with a rank below `below`."""
        conditions = [(Occur.Must, self._scored()), *((Occur.Must, one) for one in self._bounds)]
        if below is not None:
            if below == 0:
                return []
            conditions += [(Occur.MustNot, one) for one in self._not_below(below)]
        found = searcher.search(Query.boolean_query(conditions), limit=hits_max)
        matches = [Match(address, rank) for rank, address in found.hits]
        if _count(found) <= hits_max:
            return matches
        lowest = matches[-1].rank  # all above it are here; at this rank better ones may exist
        above = [match for match in matches if match.rank > lowest]
        room = hits_max - len(above)
        return [*above, *self._level(searcher, lowest, room)]

    def _scored(self) -> Query:
        weights = self._ranking.weights
        words = [
            Query.disjunction_max_query(
                [
                    Query.const_score_query(query, float(weights[tier]))
                    for tier, queries in ways.items()
                    for query in queries
                ]
            )
            for ways in self._ways
        ]
        return _all_of(*words)

    def _not_below(self, rank: int) -> Iterator[Query]:
        """Yield conditions; each match with at least this rank meets one of them."""
        same: list[Query] = []
        for tier, count in self._counted(rank):
            matching = self._matching(tier)
            if count < len(matching):
                yield _all_of(*same, _at_least(matching, count + 1))
            if count:
                same.append(_at_least(matching, count))
        if same:
            yield _all_of(*same)

    def _counted(self, rank: float) -> Sequence[tuple[Tier, int]]:
        counts = self._ranking.counts(rank)
        return [(tier, counts.of(tier)) for tier in (Tier.PART, Tier.BEGINNING, Tier.EXACT)]

    def _level(
        self,
        searcher: Searcher,
        rank: float,
        hits_max: int,
        after: Sequence[int] | None = None,
    ) -> list[Match]:
        """Return the first of the matches with exactly this rank."""
        if rank == self._ranking.rank_max:
            query = _all_of(*self._exact, *self._bounds)
        else:
            counted = self._counted(rank)
            every = [tier for tier, count in counted if count == len(self._exact)]
            worst = max(every, default=Tier.TYPO)  # such a match is also one in all lower tiers
            conditions = [(Occur.Must, one) for one in (*self._matching(worst), *self._bounds)]
            for tier, count in counted:
                if tier > worst:
                    conditions += _count_of(self._matching(tier), count)
            query = Query.boolean_query(conditions)
        return [Match(address, rank) for address in self._first(searcher, query, hits_max, after)]

    def _ranks(self, searcher: Searcher, found: Sequence[DocAddress]) -> Sequence[float]:
        """Return the ranks of matches found in another order."""
        words = self._query.words or ()
        return [rank_of(source(searcher.doc(address)).product_name, words) for address in found]

    def _first(
        self, searcher: Searcher, query: Query, hits_max: int, after: Sequence[int] | None
    ) -> Sequence[DocAddress]:
        """Return the first documents by the sort's fields, descending, for any number of ties."""
        first: list[DocAddress] = []
        fields = _FIELDS[self._query.sort]
        if after is not None:
            query = _all_of(query, self._beyond(fields, after))
        for field in fields:
            room = hits_max - len(first)
            hits = searcher.search(
                query, limit=room + 1, count=False, order_by_field=field, order=Order.Desc
            ).hits
            if len(hits) <= room or hits[room - 1][0] != hits[room][0]:
                return first + [address for _, address in hits[:room]]
            tied = hits[room][0]
            first += [address for value, address in hits if value > tied]
            query = _all_of(query, self._range(field, tied, tied))
        return first  # unreachable: the last field distinguishes any two ids

    def _beyond(self, fields: Sequence[str], keys: Sequence[int]) -> Query:
        """Return the condition that a document comes after a position, descending."""
        ways = []
        same: list[Query] = []
        for field, key in zip(fields, keys, strict=True):
            below = Query.range_query(
                self._schema, field, FieldType.Integer, None, key, include_upper=False
            )
            ways.append(_all_of(*same, below))
            same.append(self._range(field, key, key))
        return _any_of(*ways)

    def _within(self, bounds: Bounds) -> Sequence[Query]:
        limits = {
            "created": (bounds.micros_min, bounds.micros_max),
            "cents": (bounds.cents_min, bounds.cents_max),
        }
        return [
            Query.const_score_query(self._range(field, low, high), 0.0)
            for field, (low, high) in limits.items()
            if (low, high) != (None, None)
        ]

    def _range(self, field: str, low: int | None, high: int | None) -> Query:
        return Query.range_query(self._schema, field, FieldType.Integer, low, high)

    def _exactly(self, word: QueryWord) -> Query:
        terms = [
            Query.term_query(self._schema, "stems", term, index_option="basic")
            for term in word.exact
        ]
        return terms[0] if len(terms) == 1 else _any_of(*terms)

    def _beginning_with(self, word: QueryWord) -> Sequence[Query]:
        return [self._begun("words", prefix) for prefix in word.prefixes]

    def _having_within(self, word: QueryWord) -> Sequence[Query]:
        return [self._begun("parts", part) for part in word.parts] if self._has_parts else []

    def _begun(self, field: str, beginning: str) -> Query:
        # A pattern takes 300 us to compile, an automaton without edits 1 us.
        return Query.fuzzy_term_query(self._schema, field, beginning, distance=0, prefix=True)

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
    if not queries:
        return Query.const_score_query(Query.all_query(), 0.0)
    return Query.boolean_query([(Occur.Must, query) for query in queries])


def _at_least(queries: Sequence[Query], count: int) -> Query:
    choices = [(Occur.Should, query) for query in queries]
    return Query.boolean_query(choices, minimum_number_should_match=count)


def _count_of(queries: Sequence[Query], count: int) -> list[tuple[Occur, Query]]:
    """Return the conditions that exactly `count` of the queries match."""
    conditions = []
    if count > 0:
        conditions.append((Occur.Must, _at_least(queries, count)))
    if count < len(queries):
        conditions.append((Occur.MustNot, _at_least(queries, count + 1)))
    return conditions
