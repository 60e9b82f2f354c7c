"""A simulated search engine: indexes by name, one of them current, one perhaps being built.

A document is durable when `index` returns, and found once the engine has shown it: after
`shown_after_seconds`, or at a `show`.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Literal, NamedTuple
from uuid import UUID

from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.order import Order, to_micros
from polyglot_persistence.domain.search.matching import rank_of, spans_of
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
    position,
    price_range,
)
from polyglot_persistence.domain.search.terms import QueryWord
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.audit import RangeSum, SearchContents
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import Hit, IndexFailure, SearchIndex, SearchResult
from polyglot_persistence.ports.state import StoreState

SHOWN_SECONDS = 1.0
FORM = 2

Role = Literal["current", "building"]


class Document(NamedTuple):
    """An order as an index holds it."""

    order: Order
    indexed_at: datetime


class _Change(NamedTuple):
    """What becomes of a document, and when a search shows it."""

    shown_at: float
    order_id: UUID
    document: Document | None


class Index:
    """One index: what a search finds, and what it will find soon."""

    def __init__(self, form: int = FORM) -> None:
        self.form = form
        self.shown: dict[UUID, Document] = {}
        self.coming: list[_Change] = []

    def show(self, until: float) -> None:
        """Let searches find what is due."""
        due = [change for change in self.coming if change.shown_at <= until]
        self.coming = self.coming[len(due) :]
        for _, order_id, document in due:
            if document is None:
                self.shown.pop(order_id, None)
            else:
                self.shown[order_id] = document


class SearchEngineServer:
    """The engine with its indexes. It is up, and without an index at first."""

    def __init__(self, clock: Clock, *, shown_after_seconds: float = SHOWN_SECONDS) -> None:
        self.clock = clock
        self.shown_after_seconds = shown_after_seconds
        self.is_up = True
        self.is_frozen = False
        """A write block on the current index, which outlives whoever set it."""
        self.indexes: dict[str, Index] = {}
        self.roles: dict[Role, str] = {}
        self._made = 0

    def check(self) -> None:
        """Raise if it is away."""
        if not self.is_up:
            raise UnavailableError("the search engine is away")

    def opened(self, role: Role) -> Index | None:
        """Return the index in a role, if there is one of this form."""
        self.check()
        index = self.indexes.get(self.roles.get(role, ""))
        if index is None or index.form < FORM:
            return None
        if index.form > FORM:
            raise UnavailableError("the index was made by a newer version")
        index.show(self.clock.monotonic())
        return index

    def create(self, role: Role) -> str:
        """Create an empty index in a role."""
        self.check()
        self._made += 1
        name = f"orders-{self._made}"
        self.indexes[name] = Index()
        self.roles[role] = name
        return name

    # --- what happens to it ------------------------------------------------------------------

    def stop(self) -> None:
        """Take it away."""
        self.is_up = False

    def pending_changes(self) -> int:
        """Return how many changes no search has shown yet."""
        return sum(len(index.coming) for index in self.indexes.values())

    def start(self, *, lost_changes: int = 0) -> None:
        """Give it back, every index without its last changes that no search has shown."""
        for index in self.indexes.values():
            index.coming = index.coming[: max(len(index.coming) - lost_changes, 0)]
        self.is_up = True

    def wipe(self) -> None:
        """Remove all indexes."""
        self.indexes = {}
        self.roles = {}
        self.is_frozen = False

    def make_foreign(self, form: int) -> None:
        """Let the current index be of another version of this project."""
        self.indexes[self.roles["current"]].form = form


class SimulatedSearch:
    """`ports.SearchIndex` of one process."""

    def __init__(self, engine: SearchEngineServer, role: Role = "current") -> None:
        self._engine = engine
        self._role: Role = role
        self._is_closed = False

    async def close(self) -> None:
        """Answer nothing any more."""
        self._is_closed = True

    async def index(self, orders: Sequence[StoredOrder]) -> Sequence[IndexFailure]:
        """Add or replace documents."""
        if not orders:
            return []
        failures = []
        changes: list[tuple[UUID, Document | None]] = []
        for row in orders:
            try:
                checksum(row.order)
            except ValueError as error:
                failures.append(IndexFailure(row.order.id, str(error)))
            else:
                document = Document(row.order, self._engine.clock.now())
                changes.append((row.order.id, document))
        self._write(changes)
        return failures

    async def remove(self, ids: Sequence[UUID]) -> None:
        """Remove documents."""
        if ids:
            self._write([(order_id, None) for order_id in ids])

    async def search(self, query: SearchQuery) -> SearchResult:
        """Look at every order."""
        shown = self._shown()
        if query.words == ():
            return SearchResult(0, [], Facets([], [], []) if query.facets else None)
        words = query.words or ()
        matching = [
            Hit(document.order, rank_of(document.order.product_name, words) if words else 0)
            for document in shown.values()
            if _matches(document.order, words) and _within(document.order, query.bounds)
        ]
        hits = sorted(
            matching, key=lambda hit: position(hit.order, hit.rank, query.sort), reverse=True
        )
        if query.after is not None:
            hits = [h for h in hits if position(h.order, h.rank, query.sort) < query.after]
        total = len(matching)
        counts_all = query.facets or (query.words is None and query.bounds == Bounds())
        counted_max = total if counts_all else COUNTED_ORDERS_MAX
        return SearchResult(
            min(total, counted_max),
            hits[: query.hits_max],
            _facets([hit.order for hit in matching]) if query.facets else None,
            total <= counted_max,
        )

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return the names that match, the most ordered first."""
        if not words:
            return []
        return _names(
            [d.order for d in self._shown().values() if _matches(d.order, tuple(words))], names_max
        )

    async def indexed_at(self, order_id: UUID) -> datetime | None:
        """Return when a document was indexed that a search finds."""
        document = self._shown().get(order_id)
        return document.indexed_at if document else None

    async def ping(self) -> StoreState:
        """See that there is an index."""
        self._shown()
        return StoreState("Simulated 1")

    def _opened(self) -> Index | None:
        if self._is_closed:
            raise UnavailableError("this index is closed")
        return self._engine.opened(self._role)

    def _shown(self) -> Mapping[UUID, Document]:
        index = self._opened()
        if index is None:
            raise UnavailableError("the search index is missing")
        return index.shown

    def _write(self, changes: Sequence[tuple[UUID, Document | None]]) -> None:
        engine = self._engine
        index = self._opened()
        if index is None:
            raise UnavailableError("the search index is missing")
        if engine.is_frozen and self._role == "current":
            raise UnavailableError("the search index takes no documents now")
        shown_at = engine.clock.monotonic() + engine.shown_after_seconds
        index.coming += [_Change(shown_at, *change) for change in changes]


class SimulatedContents:
    """`ports.audit.SearchContents`."""

    def __init__(self, engine: SearchEngineServer, role: Role = "current") -> None:
        self.shown_after_seconds = engine.shown_after_seconds
        self._engine = engine
        self._role: Role = role

    async def sum_between(self, first: UUID, last: UUID) -> RangeSum:
        """Sum up a range."""
        sums = self._checksums(first, last)
        return RangeSum(len(sums), sum(sums.values()))

    async def checksums_between(
        self, first: UUID, last: UUID, orders_max: int
    ) -> Mapping[UUID, int]:
        """Return those of a range with the lowest ids."""
        return dict(sorted(self._checksums(first, last).items())[:orders_max])

    async def checksums_of(self, ids: Sequence[UUID]) -> Mapping[UUID, int]:
        """Return those of ids."""
        shown = self._index().shown
        return {i: checksum(shown[i].order) for i in ids if i in shown}

    def _checksums(self, first: UUID, last: UUID) -> dict[UUID, int]:
        shown = self._index().shown
        return {i: checksum(one.order) for i, one in shown.items() if first <= i <= last}

    def _index(self) -> Index:
        index = self._engine.opened(self._role)
        if index is None:
            raise UnavailableError("the search index is missing")
        return index


class SimulatedTarget:
    """`ports.rebuild.RebuildTarget`."""

    def __init__(self, engine: SearchEngineServer) -> None:
        self._engine = engine
        self.building: SearchIndex = SimulatedSearch(engine, "building")
        self.contents: SearchContents = SimulatedContents(engine, "building")

    async def current_name(self) -> str | None:
        """Return the current index's name."""
        return self._engine.roles["current"] if self._engine.opened("current") else None

    async def building_name(self) -> str | None:
        """Return the name of the one that is being built."""
        return self._engine.roles["building"] if self._engine.opened("building") else None

    async def lost_parts(self) -> Collection[str]:
        """An engine is there as a whole, or not at all."""
        self._engine.check()
        return ()

    async def adopt_settings(self) -> None:
        """There are none."""
        self._engine.check()

    async def begin(self) -> str:
        """Create an empty one instead of any other."""
        self._engine.check()
        self._engine.indexes.pop(self._engine.roles.get("building", ""), None)
        return self._engine.create("building")

    async def show(self) -> None:
        """Show all of it now."""
        index = self._engine.opened("building")
        if index is None:
            raise UnavailableError("there is no index that is being built")
        index.show(float("inf"))

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Block writes to the current index; an engine that is away stays blocked."""
        engine = self._engine
        engine.check()
        engine.is_frozen = True
        try:
            yield
        finally:
            if engine.is_up:
                engine.is_frozen = False

    async def swap(self) -> None:
        """Let the built index be the current one."""
        if self._engine.opened("building") is None:
            raise UnavailableError("there is no index that is being built")
        self._engine.roles["current"] = self._engine.roles.pop("building")

    async def release(self) -> None:
        """Nothing is held."""

    async def clean_up(self) -> None:
        """Remove what is in no role."""
        engine = self._engine
        engine.check()
        engine.is_frozen = False
        used = engine.roles.values()
        engine.indexes = {name: one for name, one in engine.indexes.items() if name in used}


def _matches(order: Order, words: tuple[QueryWord, ...]) -> bool:
    return all(spans_of(order.product_name, (word,)) for word in words)


def _within(order: Order, bounds: Bounds) -> bool:
    micros, cents = to_micros(order.created_at), _cents(order)
    return (
        (bounds.micros_min is None or bounds.micros_min <= micros)
        and (bounds.micros_max is None or micros <= bounds.micros_max)
        and (bounds.cents_min is None or bounds.cents_min <= cents)
        and (bounds.cents_max is None or cents <= bounds.cents_max)
    )


def _cents(order: Order) -> int:
    return int(order.amount.scaleb(2))


def _facets(orders: Sequence[Order]) -> Facets:
    prices: dict[int, int] = {}
    days: dict[date, int] = {}
    for order in orders:
        place = sum(bound <= _cents(order) for bound in PRICE_BOUNDS_CENTS) - 1
        prices[place] = prices.get(place, 0) + 1
        day = order.created_at.date()
        days[day] = days.get(day, 0) + 1
    return Facets(
        [price_range(place, prices[place]) for place in sorted(prices)],
        [DayOrders(day, days[day]) for day in sorted(days, reverse=True)[:DAYS_MAX]],
        _names(orders, NAMES_MAX),
    )


def _names(orders: Sequence[Order], names_max: int) -> list[NameOrders]:
    counts: dict[str, int] = {}
    for order in orders:
        counts[order.product_name] = counts.get(order.product_name, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [NameOrders(*item) for item in ordered[:names_max]]
