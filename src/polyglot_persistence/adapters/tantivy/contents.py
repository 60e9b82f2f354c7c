"""Contents of the index, from the columns: no document is read."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import tantivy
from tantivy import Occur, Query

from polyglot_persistence.adapters.tantivy.documents import halves, joined
from polyglot_persistence.adapters.tantivy.index import RELOAD_SECONDS, TantivyIndex
from polyglot_persistence.ports.audit import RangeSum

_SUMS = {
    "orders": {"value_count": {"field": "id_high"}},
    "checksum": {"sum": {"field": "checksum"}},
}


class TantivyContents:
    """`SearchContents` over an index."""

    def __init__(self, index: TantivyIndex) -> None:
        self._index = index
        self.shown_after_seconds = RELOAD_SECONDS

    async def sum_between(self, first: UUID, last: UUID) -> RangeSum:
        """Takes a millisecond for some ten thousand orders."""

        def job(searcher: tantivy.Searcher, schema: tantivy.Schema) -> RangeSum:
            sums = searcher.aggregate(_between(schema, first, last), _SUMS)
            return RangeSum(int(sums["orders"]["value"]), int(sums["checksum"]["value"] or 0))

        return await self._index.read(job)

    async def checksums_between(
        self, first: UUID, last: UUID, orders_max: int
    ) -> Mapping[UUID, int]:

        def job(searcher: tantivy.Searcher, schema: tantivy.Schema) -> Mapping[UUID, int]:
            found = _checksums(searcher, _between(schema, first, last))
            return dict(sorted(found.items())[:orders_max])

        return await self._index.read(job)

    async def checksums_of(self, ids: Sequence[UUID]) -> Mapping[UUID, int]:
        names = [str(order_id) for order_id in ids]

        def job(searcher: tantivy.Searcher, schema: tantivy.Schema) -> Mapping[UUID, int]:
            return _checksums(searcher, Query.term_set_query(schema, "id", names))

        return await self._index.read(job) if names else {}


def _checksums(searcher: tantivy.Searcher, query: Query) -> dict[UUID, int]:
    hits = searcher.search(query, limit=max(searcher.num_docs, 1), count=False).hits
    places = [place for _, place in hits]
    columns = [searcher.fast_field_values(n, places) for n in ("id_high", "id_low", "checksum")]
    return {joined(high, low): int(checksum) for high, low, checksum in zip(*columns, strict=True)}


def _between(schema: tantivy.Schema, first: UUID, last: UUID) -> Query:
    """Return a range of ids as ranges of the two columns that make up an id."""
    (first_high, first_low), (last_high, last_low) = halves(first), halves(last)

    def column(name: str, low: int | None, high: int | None, *, within: bool = True) -> Query:
        return Query.range_query(schema, name, tantivy.FieldType.Integer, low, high, within, within)

    def both(high: int, low_from: int | None, low_to: int | None) -> Query:
        parts = (column("id_high", high, high), column("id_low", low_from, low_to))
        return Query.boolean_query([(Occur.Must, part) for part in parts])

    if first_high == last_high:
        return both(first_high, first_low, last_low)
    parts = [both(first_high, first_low, None), both(last_high, None, last_low)]
    if last_high - first_high > 1:
        parts.append(column("id_high", first_high, last_high, within=False))
    return Query.boolean_query([(Occur.Should, part) for part in parts])
