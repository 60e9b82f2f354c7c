"""The search index."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain.order import Order
from polyglot_persistence.domain.search.query import Facets, NameOrders, SearchQuery
from polyglot_persistence.domain.search.terms import QueryWord
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.state import StoreState


class Hit(NamedTuple):
    """One order that matched."""

    order: Order
    rank: int
    """Rank of the match (`ranking.Ranking`); 0 for a query without words."""


class SearchResult(NamedTuple):
    """A page of hits in the requested order, and the total."""

    total: int
    hits: Sequence[Hit]
    facets: Facets | None = None
    total_is_exact: bool = True
    """False if there are more."""


class IndexFailure(NamedTuple):
    """One document that the index can never take."""

    order_id: UUID
    reason: str


class SearchIndex(Protocol):
    """A projection of the record for full-text search. Disposable: rebuilt from the record."""

    async def index(self, orders: Sequence[StoredOrder]) -> Sequence[IndexFailure]:
        """Add or replace the documents durably; return those that can never be indexed.

        Idempotent by order id. They become visible to `search` within about a second.

        Raises:
            UnavailableError: any of them may be missing; index all of them again.
        """

    async def remove(self, ids: Sequence[UUID]) -> None:
        """Remove documents durably, whether they are there or not.

        Raises:
            UnavailableError: any of them may be there still; remove all of them again.
        """

    async def search(self, query: SearchQuery) -> SearchResult:
        """Return a page of the matches; any text is a query, none is syntax.

        Every word must match: exactly, as a beginning, as a part of a word, or with a typo, in that
        order of preference (`ranking.Tier`).

        Raises:
            UnavailableError: the index is missing or away (never an empty success).
        """

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return names that match every word, the most ordered first; none for no words.

        If very many orders match, the counts may cover only a part of them.

        Raises:
            UnavailableError: the index is missing or away.
        """

    async def indexed_at(self, order_id: UUID) -> datetime | None:
        """Return when the order was indexed if a search can find it now."""

    async def ping(self) -> StoreState:
        """Return the engine's version and the index's health."""
