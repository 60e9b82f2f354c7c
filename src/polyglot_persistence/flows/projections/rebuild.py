"""Builds a new search index while orders come in and searches run.

    begin    an empty index beside the current one; from now on the record keeps everything that
             the current one receives (arrivals)
    fill     every order of the record by id; the record stores the position
    arrive   everything that the current one has received meanwhile
    verify   number and checksum of each range of ids, and where they differ the orders themselves
    swap     writes stop: the last arrivals and the whole outbox are indexed; then the new index
             takes the current one's place in one step
    end      the record forgets the rebuild; the old index is removed

An order found before the swap is found after it: each document of the old index was filled, has
arrived, or waits in the outbox. After a crash at any point the next process resumes the rebuild.

A missing index is built in the same way, including the very first. Until the swap there is none, so
a search returns 503 instead of a part of the orders. An index of which a part is lost counts as
current: it is removed after the swap, and whatever it still receives has arrived.
"""

import enum
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.config.limits import IndexerLimits
from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.behind.index import bury_failures
from polyglot_persistence.ports.audit import ID_MAX, ID_MIN, AuditedRecord
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import Orders, StoredOrder
from polyglot_persistence.ports.rebuild import Rebuild, RebuildRecord, RebuildTarget
from polyglot_persistence.telemetry import logger

_log = logger("rebuild")

ROLE = "search rebuild"
"""Only one process at a time builds."""

RANGE_ORDERS = 10_000
"""Orders compared by one checksum; where it differs, all of them are read."""

ARRIVAL_BATCHES_MAX = 20
"""Maximum batches of arrivals before the swap; fewer once one is less than half full. The swap
indexes the rest and blocks all other indexing, so a rebuild ends even if orders come in faster."""

OLD_INDEX_SECONDS = 2.0
"""How long a running search may continue to use the replaced index."""


class VerificationError(PolyglotError):
    """The new index differs from the record even after a repair."""


class Phase(enum.Enum):
    """Phase of a rebuild."""

    FILL = "fill"
    VERIFY = "verify"
    SWAP = "swap"


class Step(NamedTuple):
    """Progress of a rebuild."""

    phase: Phase
    done: int
    total: int


class Rebuilt(NamedTuple):
    """Result of a rebuild."""

    index_name: str
    orders: int
    """Orders in the new index when it was verified."""
    mended: int
    """Documents that were missing, wrong, or without an order; includes orders of just now."""
    resumed: bool
    """Whether another process had begun the rebuild."""


async def _nothing(_step: Step) -> None:
    """Show nothing."""


@dataclass
class RebuildFlow:
    """Builds a search index, or resumes a build."""

    record: RebuildRecord
    audited: AuditedRecord
    target: RebuildTarget
    orders: Orders
    clock: Clock
    _: KW_ONLY
    limits: IndexerLimits
    _lost_since: Mapping[str, float] = field(default_factory=dict, init=False)

    async def adopt_settings(self) -> None:
        """Give the current index the settings of a new one, as far as it can take them.

        Raises:
            UnavailableError: the index is away.
        """
        await self.target.adopt_settings()

    async def is_needed(self) -> bool:
        """Return whether the index is missing or unusable, or a rebuild is unfinished.

        An index is unusable if a part of it was lost in all looks of the last
        `search_lost_seconds`.

        Raises:
            UnavailableError: index or record is away.
        """
        if await self.target.current_name() is None:
            return True
        if await self.record.current() is not None:
            return True
        lost = await self._lost()
        if lost:
            _log.warning("index_lost", index=",".join(lost))
        return bool(lost)

    async def _lost(self) -> Collection[str]:
        """Return the indexes of which a part has been lost for `search_lost_seconds`.

        Time counts from a look of this process, so a rebuild follows another one of the same index
        after that time at the earliest.
        """
        now = self.clock.monotonic()
        lost = await self.target.lost_parts()
        self._lost_since = {name: self._lost_since.get(name, now) for name in lost}
        return [
            name
            for name, since in self._lost_since.items()
            if now - since >= self.limits.search_lost_seconds
        ]

    async def is_first(self) -> bool:
        """Return whether there is no usable index, and no order to index.

        Raises:
            UnavailableError: index or record is away.
        """
        if await self.target.current_name() is not None:
            return False
        return not await self.record.orders_after(None, 1)

    async def progress(self) -> Rebuild | None:
        """Return the progress of the current rebuild, in any process."""
        return await self.record.current()

    async def run(self, show: Callable[[Step], Awaitable[None]] = _nothing) -> Rebuilt:
        """Build the index, or resume an interrupted build; only in the role `ROLE`.

        `show` is called after each step; an exception from it ends the work, which can be resumed.

        Raises:
            UnavailableError: index or record is away; run it again.
            VerificationError: the new index is not used.
        """
        try:
            return await self._run(show)
        finally:
            await self.target.release()

    async def _run(self, show: Callable[[Step], Awaitable[None]]) -> Rebuilt:
        rebuild = await self.record.current()
        current = await self.target.current_name()
        resumed = rebuild is not None
        if rebuild is not None and current == rebuild.index_name:  # crashed between swap and end
            await self._end(replaced=True)
            return Rebuilt(rebuild.index_name, rebuild.filled, 0, resumed)
        if (
            rebuild is None
            or rebuild.index_name in await self._lost()
            or await self.target.building_name() != rebuild.index_name
        ):
            resumed = False
            rebuild = await self.record.begin(await self.target.begin())
        log = _log.warning if rebuild.total else _log.info  # the very first index is no news
        log(
            "rebuild_resumed" if resumed else "rebuild_begun",
            index=rebuild.index_name,
            orders=rebuild.total,
            replaces=current,
        )
        await self._fill(rebuild, show)
        for _ in range(ARRIVAL_BATCHES_MAX):
            if await self._arrive() < self.limits.index_batch_orders // 2:
                break
        orders, mended = await self._verify(rebuild.total, show)
        await show(Step(Phase.SWAP, orders, orders))
        await self._swap(replaces=current is not None)
        await self._end(replaced=current is not None)
        log("rebuild_ended", index=rebuild.index_name, orders=orders, mended=mended)
        return Rebuilt(rebuild.index_name, orders, mended, resumed)

    async def _fill(self, rebuild: Rebuild, show: Callable[[Step], Awaitable[None]]) -> None:
        position, filled = rebuild.position, rebuild.filled
        # At most one second's worth, so that a pause ends soon.
        rate = self.limits.search_rebuild_orders_per_second
        batch_orders = max(1, min(self.limits.index_batch_orders, int(rate)))
        while True:
            started = self.clock.monotonic()
            rows = await self.record.orders_after(position, batch_orders)
            if not rows:
                return
            await self._index(rows)
            position = rows[-1].order.id
            filled += len(rows)
            await self.record.advance(position, len(rows))
            await show(Step(Phase.FILL, filled, max(rebuild.total, filled)))
            if len(rows) < batch_orders:
                return  # later orders will arrive
            due = started + len(rows) / rate
            await self.clock.sleep(max(0.0, due - self.clock.monotonic()))

    async def _arrive(self) -> int:
        """Index some of the arrivals; return the number of orders."""
        async with self.record.claim_arrivals(self.limits.index_batch_orders) as rows:
            await self._index(rows)
        return len(rows)

    async def _verify(self, total: int, show: Callable[[Step], Awaitable[None]]) -> tuple[int, int]:
        """Compare all ranges, mend differences; return the numbers of orders and of mended ones."""
        await self.target.show()
        first, orders, mended = ID_MIN, 0, 0
        while True:
            part = await self.audited.range_from(first, RANGE_ORDERS)
            if await self.target.contents.sum_between(first, part.last) != part.sums:
                mended += await self._mend(first, part.last)
            orders += part.sums.orders
            await show(Step(Phase.VERIFY, orders, max(total, orders)))
            if part.last == ID_MAX:
                return orders, mended
            first = UUID(int=part.last.int + 1)

    async def _mend(self, first: UUID, last: UUID) -> int:
        """Make a range equal to the record; return the number of documents that differed.

        The index is read first, so that all its documents are committed by the time the record is
        read. An order that comes in between counts as missing, which is harmless.
        """
        held = await self.target.contents.checksums_between(first, last, 2 * RANGE_ORDERS)
        rows = {row.order.id: row for row in await self.record.orders_between(first, last)}
        sums = {order_id: checksum(row.order) for order_id, row in rows.items()}
        wrong = [order_id for order_id, number in sums.items() if held.get(order_id) != number]
        extra = [order_id for order_id in held if order_id not in rows]
        refused = await self._index([rows[order_id] for order_id in wrong])
        await self.target.building.remove(extra)
        await self.target.show()
        now = await self.target.contents.checksums_of([*wrong, *extra])
        for order_id in (*wrong, *extra):
            if now.get(order_id) != sums.get(order_id) and order_id not in refused:
                raise VerificationError(f"the new search index is wrong about order {order_id}")
        return len(wrong) + len(extra) - len(refused)

    async def _swap(self, *, replaces: bool) -> None:
        async with self.target.frozen():
            if replaces:  # in this order: a row may become an arrival, never the reverse
                await self._index_outbox()
            while await self._arrive():
                pass
            await self.target.show()
            await self.target.swap()

    async def _index_outbox(self) -> None:
        """Index the outbox rows whose orders the current index may already contain.

        It cannot contain the orders of rows that are committed later.
        """
        end, last = await self.record.outbox_end(), 0
        while (
            waiting := await self.record.outbox_between(last, end, self.limits.index_batch_orders)
        ) is not None:
            rows, last = waiting
            await self._index(rows)

    async def _end(self, *, replaced: bool) -> None:
        await self.record.end()
        if replaced:
            await self.clock.sleep(OLD_INDEX_SECONDS)
        await self.target.clean_up()

    async def _index(self, rows: Sequence[StoredOrder]) -> set[UUID]:
        """Index into the new index; return the orders that it can never take."""
        if not rows:
            return set()
        failures = await self.target.building.index(rows)
        await bury_failures(self.orders, rows, failures)
        return {failure.order_id for failure in failures}
