"""Flows for the HTTP interface that answer as a test tells them to."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from polyglot_persistence.api.app import Flows
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.config.limits import ApiLimits
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.domain.order import Content, derived_id, new_id
from polyglot_persistence.domain.search.matching import spans_of
from polyglot_persistence.domain.search.query import NameOrders, SearchQuery
from polyglot_persistence.domain.search.terms import QueryWord
from polyglot_persistence.errors import ConflictError
from polyglot_persistence.flows.intake.accept import Acceptance
from polyglot_persistence.flows.projections.search import SearchFlow
from polyglot_persistence.flows.reading.read import OrderStatus, Read
from polyglot_persistence.flows.watch.health import Health
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.sales import DaySales, LatestDays
from polyglot_persistence.ports.search import SearchResult
from tests.support.scripted import FakeClock

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = UUID("0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04")
LIMITS = ApiLimits(
    order_body_bytes_max=1_024,
    body_bytes_max=4_096,
    import_line_bytes_max=256,
    import_rejected_in_a_row_max=1_000,
    import_chunk_orders=10,
    import_wait_seconds=1.0,
    prefer_wait_seconds_max=30.0,
)

EVERYTHING = frozenset({Scope.READ, Scope.WRITE, Scope.ADMIN})
OPEN = Access(without_key=EVERYTHING)
"""Lets everybody do everything, as `polyglot up` does on the loopback."""


class StubFlows:
    """All flows in one: they remember what they were asked, and raise `error` if there is one."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.accepted: list[Content] = []
        self.keys: dict[str, Content] = {}
        self.may_accept = asyncio.Event()
        """Cleared: a new order without a key stays uncommitted until it is set."""
        self.may_accept.set()
        self.remembered: bytes | None = None
        self.read = Read(b'{"id":"x"}', hit=True)
        self.in_cache: bool | None = None
        """What a look-up into the cache finds; None: none is begun."""
        self.state = OrderStatus(ID, NOW, False, None, None, None)
        self.persisted = True
        self.waits: list[float] = []
        self.rows: list[StoredOrder] = []
        self.hits = SearchResult(0, ())
        self.named: list[NameOrders] = []
        self.searched: SearchQuery | None = None
        self.days: list[DaySales] = []
        self.days_max = 0
        self.state_of_stores = Health({}, accepting=True, mode="normal")
        self.is_leaving = False

    def as_flows(self) -> Flows:
        """Return this object in the place of each flow."""
        stub = cast("Any", self)
        return Flows(stub, stub, SearchFlow(stub, FakeClock()), stub, stub, stub, stub)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def accept_new(self, content: Content) -> tuple[UUID, asyncio.Future[list[Any]]]:
        return ID, asyncio.ensure_future(self._accept_new(content))

    async def _accept_new(self, content: Content) -> list[Any]:
        await self.may_accept.wait()
        self._fail()
        self.accepted.append(content)
        return []

    def recent(self, _id_text: bytes) -> bytes | None:
        return self.remembered

    def begin(self, _order_id: UUID) -> asyncio.Future[bool] | None:
        if self.in_cache is None:
            return None
        looked_up = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(looked_up.set_result, self.in_cache)
        return looked_up

    def found(self, looked_up: asyncio.Future[bool]) -> Read | None:
        return self.read if looked_up.result() else None

    async def finish(self, order_id: UUID, _looked_up: asyncio.Future[bool]) -> Read:
        return await self.get(order_id)

    async def accept_keyed(self, client: str, key: str, content: Content) -> Acceptance:
        self._fail()
        if self.keys.setdefault(key, content) != content:
            raise ConflictError("the key stands for another order")
        replayed = content in self.accepted
        self.accepted.append(content)
        return Acceptance([derived_id(client, key)], replayed)

    async def accept_bulk(
        self, _client: str, _key: str | None, items: Sequence[Content]
    ) -> Acceptance:
        self._fail()
        self.accepted += items
        return Acceptance([new_id() for _ in items], replayed=False)

    async def get(self, _order_id: UUID) -> Read:
        self._fail()
        return self.read

    async def status(self, _order_id: UUID) -> OrderStatus:
        self._fail()
        return self.state

    async def wait_persisted(self, _ids: Sequence[UUID], seconds: float) -> bool:
        self.waits.append(seconds)
        return self.persisted

    async def page(
        self, before: tuple[datetime, UUID] | None, orders_max: int
    ) -> Sequence[StoredOrder]:
        self._fail()
        rows = [
            row
            for row in self.rows
            if before is None or (row.order.created_at, row.order.id) < before
        ]
        return rows[:orders_max]

    async def search(self, query: SearchQuery) -> SearchResult:
        """Answer as a search index; the flow over it is the real one."""
        self._fail()
        self.searched = query
        return self.hits._replace(hits=self.hits.hits[: query.hits_max])

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Answer as a search index."""
        self._fail()
        named = [name for name in self.named if spans_of(name.product_name, tuple(words))]
        return named[:names_max]

    async def latest_days(self, days_max: int) -> LatestDays:
        self._fail()
        self.days_max = days_max
        return LatestDays(NOW, self.days)

    async def refresh(self, _trigger: str) -> datetime:
        self._fail()
        return NOW

    async def check(self) -> Health:
        return self.state_of_stores
