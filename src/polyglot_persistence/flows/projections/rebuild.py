"""Builds the search index anew from the record while orders come in and are searched for.

    begin    an empty index beside the current one; from now on the record keeps what the current
             one gets (arrivals)
    fill     every order of the record by id; the record remembers how far
    arrive   what the current one got meanwhile
    verify   number and checksum of each range of ids, and where they differ the orders themselves
    swap     nobody writes: the last arrivals, and all that waits in the outbox; then the new index
             takes the current one's place in one step
    end      the record forgets the rebuild; the old index is removed

Nothing that a search found before the swap is missing after it: whatever the old index holds was
either filled, has arrived, or waits in the outbox. A process that dies anywhere leaves what the
next one goes on from.

A missing index is built in the same way. Until the swap there is none, so a search says 503 instead
of answering with a part of the orders.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.config.limits import IndexerLimits
from polyglot_persistence.domain.checksum import checksum
from polyglot_persistence.errors import PolyglotError
from polyglot_persistence.flows.behind.index import bury_failures
from polyglot_persistence.ports.audit import ID_MAX, ID_MIN
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import OrderStore, StoredOrder
from polyglot_persistence.ports.rebuild import Rebuild, RebuildRecord, RebuildTarget
from polyglot_persistence.telemetry import logger

_log = logger("rebuild")

ROLE = "search rebuild"
"""One process at a time builds."""

RANGE_ORDERS = 10_000
"""Orders compared by one sum; where it differs, so many are read."""

ARRIVAL_BATCHES_MAX = 20
"""What has arrived by then, or half a batch, is left to the swap, during which nothing else is
indexed: it ends also if orders come in faster than they are taken over."""

OLD_INDEX_SECONDS = 2.0
"""How long a search that is under way may go on using the index that was replaced."""


class VerificationError(PolyglotError):
    """The new index does not hold what it was given, even after it was mended."""


class Phase(enum.Enum):
    """What a rebuild is doing."""

    FILL = "fill"
    VERIFY = "verify"
    SWAP = "swap"


class Step(NamedTuple):
    """How far a rebuild is."""

    phase: Phase
    done: int
    total: int


class Rebuilt(NamedTuple):
    """What a rebuild did."""

    index_name: str
    orders: int
    """In the new index, when it was verified."""
    mended: int
    """Documents that were missing, wrong, or of no order; with those of orders of just now."""
    resumed: bool
    """Whether another process had begun it."""


async def _nothing(_step: Step) -> None:
    """Show nothing."""


class RebuildFlow:
    """Builds, or goes on building, a search index."""

    def __init__(
        self,
        record: RebuildRecord,
        target: RebuildTarget,
        store: OrderStore,
        clock: Clock,
        limits: IndexerLimits,
    ) -> None:
        self._record = record
        self._target = target
        self._store = store
        self._clock = clock
        self._limits = limits

    async def is_needed(self) -> bool:
        """Return whether there is no usable index, or a rebuild that nobody ended.

        Raises:
            UnavailableError: index or record is away.
        """
        if await self._target.current_name() is None:
            return True
        return await self._record.current() is not None

    async def progress(self) -> Rebuild | None:
        """Return how far the rebuild under way is, whoever does it."""
        return await self._record.current()

    async def run(self, show: Callable[[Step], Awaitable[None]] = _nothing) -> Rebuilt:
        """Build the index, or go on where another process ended; only in the role `ROLE`.

        `show` is called after each step; what it raises ends the work, which can be taken up again.

        Raises:
            UnavailableError: index or record is away; run it again.
            VerificationError: the new index is not used.
        """
        try:
            return await self._run(show)
        finally:
            await self._target.release()

    async def _run(self, show: Callable[[Step], Awaitable[None]]) -> Rebuilt:
        rebuild = await self._record.current()
        current = await self._target.current_name()
        resumed = rebuild is not None
        if rebuild is not None and current == rebuild.index_name:  # died between swap and end
            await self._end()
            return Rebuilt(rebuild.index_name, rebuild.filled, 0, resumed)
        if rebuild is None or await self._target.building_name() != rebuild.index_name:
            resumed = False
            rebuild = await self._record.begin(await self._target.begin())
        _log.warning(
            "rebuild_resumed" if resumed else "rebuild_begun",
            index=rebuild.index_name,
            orders=rebuild.total,
            replaces=current,
        )
        await self._fill(rebuild, show)
        for _ in range(ARRIVAL_BATCHES_MAX):
            if await self._arrive() < self._limits.index_batch_orders // 2:
                break
        orders, mended = await self._verify(rebuild.total, show)
        await show(Step(Phase.SWAP, orders, orders))
        await self._swap(replaces=current is not None)
        await self._end()
        _log.warning("rebuild_ended", index=rebuild.index_name, orders=orders, mended=mended)
        return Rebuilt(rebuild.index_name, orders, mended, resumed)

    async def _fill(self, rebuild: Rebuild, show: Callable[[Step], Awaitable[None]]) -> None:
        position, filled = rebuild.position, rebuild.filled
        # A second's worth at most, so that nobody waits long for the end of a pause.
        rate = self._limits.search_rebuild_orders_per_second
        batch_orders = max(1, min(self._limits.index_batch_orders, int(rate)))
        while True:
            started = self._clock.monotonic()
            rows = await self._record.orders_after(position, batch_orders)
            if not rows:
                return
            await self._index(rows)
            position = rows[-1].order.id
            filled += len(rows)
            await self._record.advance(position, len(rows))
            await show(Step(Phase.FILL, filled, max(rebuild.total, filled)))
            if len(rows) < batch_orders:
                return  # what has come in since then will arrive
            due = started + len(rows) / rate
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))

    async def _arrive(self) -> int:
        """Index some of what arrived; return how many orders."""
        async with self._record.claim_arrivals(self._limits.index_batch_orders) as rows:
            await self._index(rows)
        return len(rows)

    async def _verify(self, total: int, show: Callable[[Step], Awaitable[None]]) -> tuple[int, int]:
        """Compare all ranges, mend what differs; return how many orders, and how many mended."""
        await self._target.show()
        first, orders, mended = ID_MIN, 0, 0
        while True:
            part = await self._record.sum_from(first, RANGE_ORDERS)
            last = ID_MAX if part is None else part.last
            expected = (0, 0) if part is None else part.sum
            if await self._target.contents.sum_between(first, last) != expected:
                mended += await self._mend(first, last)
            if part is None:
                return orders, mended
            orders += part.sum.orders
            await show(Step(Phase.VERIFY, orders, max(total, orders)))
            if last == ID_MAX:
                return orders, mended
            if part.sum.orders < RANGE_ORDERS:  # the end of the record, at that moment
                return orders, mended + await self._mend_from(UUID(int=last.int + 1))
            first = UUID(int=last.int + 1)

    async def _mend_from(self, first: UUID) -> int:
        """Mend what lies after the record's end: documents of no order, or orders of just now."""
        held = await self._target.contents.sum_between(first, ID_MAX)
        return await self._mend(first, ID_MAX) if held.orders else 0

    async def _mend(self, first: UUID, last: UUID) -> int:
        """Make a range what the record says; return how many documents differed.

        The index is read first: whatever it holds has been committed by then. An order that came in
        between is taken for a missing one, which does no harm.
        """
        held = await self._target.contents.checksums_between(first, last, 2 * RANGE_ORDERS)
        rows = {row.order.id: row for row in await self._record.orders_between(first, last)}
        sums = {order_id: checksum(row.order) for order_id, row in rows.items()}
        wrong = [order_id for order_id, number in sums.items() if held.get(order_id) != number]
        extra = [order_id for order_id in held if order_id not in rows]
        refused = await self._index([rows[order_id] for order_id in wrong])
        await self._target.building.remove(extra)
        await self._target.show()
        now = await self._target.contents.checksums_of([*wrong, *extra])
        for order_id in (*wrong, *extra):
            if now.get(order_id) != sums.get(order_id) and order_id not in refused:
                raise VerificationError(f"the new search index is wrong about order {order_id}")
        return len(wrong) + len(extra) - len(refused)

    async def _swap(self, *, replaces: bool) -> None:
        async with self._target.frozen():
            if replaces:  # in this order: a row may become an arrival, never the other way
                await self._index_outbox()
            while await self._arrive():
                pass
            await self._target.show()
            await self._target.swap()

    async def _index_outbox(self) -> None:
        """Index what the current index may already have, although its row is still there.

        Rows that are committed from now on are of orders that it cannot have.
        """
        end, last = await self._record.outbox_end(), 0
        while (
            waiting := await self._record.outbox_between(last, end, self._limits.index_batch_orders)
        ) is not None:
            rows, last = waiting
            await self._index(rows)

    async def _end(self) -> None:
        await self._record.end()
        await self._clock.sleep(OLD_INDEX_SECONDS)
        await self._target.clean_up()

    async def _index(self, rows: Sequence[StoredOrder]) -> set[UUID]:
        """Index into the new index; return the orders that it can never take."""
        if not rows:
            return set()
        failures = await self._target.building.index(rows)
        await bury_failures(self._store, rows, failures)
        return {failure.order_id for failure in failures}
