"""Contents of the index: sums over the columns, and where these differ the documents themselves."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from polyglot_persistence.adapters.elasticsearch.documents import (
    REFRESH_SECONDS,
    SEALED_CHECKSUM,
    SHOWN,
    order,
)
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.ports.audit import RangeSum

PAGE_DOCUMENTS_MAX = 5_000
"""An index returns at most 10,000 at once (`index.max_result_window`)."""

_SUMS = {
    "orders": {"value_count": {"field": "id"}},
    "checksum": {"sum": {"script": {"source": SEALED_CHECKSUM}}},
}


class ElasticsearchContents:
    """`SearchContents` over an index."""

    def __init__(self, index: ElasticsearchIndex) -> None:
        self._index = index
        self.shown_after_seconds = REFRESH_SECONDS

    async def sum_between(self, first: UUID, last: UUID) -> RangeSum:
        answer = await self._index.read(
            query=_between(first, last), size=0, track_total_hits=False, aggregations=_SUMS
        )
        sums = answer.aggregations
        return RangeSum(int(sums["orders"]["value"]), int(sums["checksum"]["value"]))

    async def checksums_between(
        self, first: UUID, last: UUID, orders_max: int
    ) -> Mapping[UUID, int]:
        found: dict[UUID, int] = {}
        after: list[str] | None = None
        while len(found) < orders_max:
            size = min(PAGE_DOCUMENTS_MAX, orders_max - len(found))
            page = await self._page(_between(first, last), size, after)
            found.update(page)
            if len(page) < size:
                break
            after = [str(next(reversed(page)))]
        return found

    async def checksums_of(self, ids: Sequence[UUID]) -> Mapping[UUID, int]:
        found: dict[UUID, int] = {}
        for start in range(0, len(ids), PAGE_DOCUMENTS_MAX):
            names = [str(order_id) for order_id in ids[start : start + PAGE_DOCUMENTS_MAX]]
            found.update(await self._page({"terms": {"id": names}}, len(names), None))
        return found

    async def _page(
        self, query: Mapping[str, Any], size: int, after: list[str] | None
    ) -> dict[UUID, int]:
        answer = await self._index.read(
            query=query,
            size=size,
            sort=[{"id": "asc"}],
            search_after=after,
            source=SHOWN,
            track_total_hits=False,
        )
        return {UUID(hit.source["id"]): _checksum(hit.source) for hit in answer.hits.hits}


def _checksum(source: Mapping[str, Any]) -> int:
    try:
        return checksum(order(source))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return -1


def _between(first: UUID, last: UUID) -> Mapping[str, Any]:
    return {"range": {"id": {"gte": str(first), "lte": str(last)}}}
