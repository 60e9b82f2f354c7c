"""The write path: give orders their identity, look for existing ones, commit.

An order without an idempotency key or id of its own gets a new UUIDv7 and goes straight to the
group commit. An order with an identity is first looked up in cache and record:

```
  in the record or clean -> same content: a replay, nothing to do
                            other content: ConflictError
  dirty or unknown       -> group commit: stored if absent, else compared
  record away            -> accepted unchecked; the worker compares at persist and makes a
                            dead letter of a conflict, never a silent skip
  a part of a bulk       -> ConflictError if it is another bulk's, else refused: nothing was stored
```

Versions up to 0.1 derived different ids for the members of a keyed bulk, except for the first. So
where only the first one is known, the bulk is looked up under those ids, too. If the record is
away, the worker finds the bulk by its first member.

Invariant: the first stored order of an identity wins, with its `created_at`; there is no update.
Invariant: the ids of an `Acceptance` are all stored.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import (
    AcceptedOrder,
    Content,
    bulk_ids,
    derived_id,
    earlier_bulk_ids,
    make_order,
    new_id,
)
from polyglot_persistence.errors import (
    ConflictError,
    InvalidError,
    PoisonError,
    PolyglotError,
    Violation,
    refused,
)
from polyglot_persistence.flows.intake.group_commit import GroupCommit
from polyglot_persistence.flows.reading.read import Known, ReadFlow
from polyglot_persistence.ports.cache import PreparedOrder, Unit
from polyglot_persistence.ports.clock import Clock

_RESERVED = (
    "is of version 8, which stands for idempotency keys; it can only repeat a stored order as it "
    "was read, with its created_at. Give a UUID of another version, or a key with the scope admin"
)


class Acceptance(NamedTuple):
    """The durable orders, in the order of the request."""

    ids: Sequence[UUID]
    replayed: bool
    """Whether they were stored before: the same identity with the same content."""


class ImportLine(NamedTuple):
    """One order of an import; without `id` (given, or derived from a key) it gets a new one."""

    content: Content
    id: UUID | None = None
    created_at: datetime | None = None
    must_be_there: bool = False
    """Whether it may only repeat a stored order, `created_at` included."""


class LineOutcome(NamedTuple):
    """Outcome of one line: neither `unchanged` nor an error means newly accepted."""

    id: UUID
    unchanged: bool = False
    error: PolyglotError | None = None


@dataclass
class AcceptFlow:
    """Accepts orders; every method returns only once they are durable."""

    commit: GroupCommit
    reads: ReadFlow
    clock: Clock

    def accept_new(self, content: Content) -> tuple[UUID, "asyncio.Future[Sequence[Entry]]"]:
        """Take one order without an identity; it is accepted once the future resolves.

        Raises:
            UnavailableError: refused, at once or through the future.
            UnknownOutcomeError: through the future.
        """
        now = self.clock.now()
        order = make_order(new_id(), content, now)
        unit = Unit((_prepare(AcceptedOrder(order, now, order.id)),))
        return order.id, self.commit.submit(unit, has_identity=False)

    async def accept_keyed(self, client: str, key: str, content: Content) -> Acceptance:
        """Accept the one order that this client's idempotency key stands for.

        Raises:
            ConflictError: the key stands for an order with other content.
        """
        now = self.clock.now()
        order = make_order(derived_id(client, key), content, now)
        unit = Unit((_prepare(AcceptedOrder(order, now, order.id)),))
        known = await self.reads.known([order.id])
        replayed = await self._accept_identified(unit, known)
        return Acceptance([order.id], replayed)

    async def accept_bulk(
        self, client: str, key: str | None, items: Sequence[Content]
    ) -> Acceptance:
        """Accept 1 to 1,000 orders as one unit: all or nothing, now and at persist.

        Raises:
            ConflictError: the key stands for a bulk with other content.
        """
        now = self.clock.now()
        if key is not None:
            return await self._accept_keyed_bulk(client, key, items, now)
        ids = [new_id() for _ in items]
        unit = _bulk(ids, new_id(), items, now)
        await asyncio.shield(self.commit.submit(unit, has_identity=False))
        return Acceptance(ids, replayed=False)

    async def _accept_keyed_bulk(
        self, client: str, key: str, items: Sequence[Content], now: datetime
    ) -> Acceptance:
        # Were the first bulk of this key longer, a member past our last one would exist.
        *ids, beyond = bulk_ids(client, key, len(items) + 1)
        known = await self.reads.known([*ids, beyond])
        unit_id = ids[0]
        if _is_there(ids[0], known) and not any(_is_alive(i, known) for i in [*ids[1:], beyond]):
            *earlier, earlier_beyond = earlier_bulk_ids(client, key, len(items) + 1)
            also_known = await self.reads.known([*earlier, earlier_beyond])
            if any(_is_there(i, also_known) for i in earlier[1:]):
                ids, beyond, known = earlier, earlier_beyond, also_known
                unit_id = derived_id(client, key)
        if _is_there(beyond, known):
            raise ConflictError("this idempotency key was used for a longer bulk")
        unit = _bulk(ids, unit_id, items, now)
        return Acceptance(ids, await self._accept_identified(unit, known))

    async def accept_lines(self, lines: Sequence[ImportLine]) -> Sequence[LineOutcome]:
        """Accept import lines one by one, each a unit of its own.

        Returns one outcome per line. An error of the stores (503, 504) is that line's outcome too.
        """
        now = self.clock.now()
        new: list[Unit] = []
        identified: list[Unit] = []
        for line in lines:
            order = make_order(line.id or new_id(), line.content, line.created_at or now)
            accepted = AcceptedOrder(order, now, order.id, 1, line.created_at is not None)
            (new if line.id is None else identified).append(Unit((_prepare(accepted),)))
        known = await self.reads.known([unit.first_id for unit in identified])
        again = {line.id for line in lines if line.must_be_there}
        taken = [
            (self._take_again if unit.first_id in again else self._take)(unit, known)
            for unit in identified
        ]
        fate = self._take_new(new)
        # A future each instead of a task halves the cost of an import with ids.
        if waiting := [one for one in (fate, *taken) if isinstance(one, asyncio.Future)]:
            await asyncio.wait(waiting)
        error = fate if fate is None or isinstance(fate, PolyglotError) else _error_of(fate)
        outcomes_new = iter([LineOutcome(unit.first_id, error=error) for unit in new])
        outcomes_identified = iter(
            one if isinstance(one, LineOutcome) else _line_outcome(unit, one)
            for unit, one in zip(identified, taken, strict=True)
        )
        return [next(outcomes_new if line.id is None else outcomes_identified) for line in lines]

    def _take_new(
        self, units: Sequence[Unit]
    ) -> "asyncio.Future[Sequence[Entry]] | PolyglotError | None":
        if not units:
            return None
        try:
            return self.commit.submit(*units, has_identity=False)
        except PolyglotError as error:
            return error

    def _take(self, unit: Unit, known: Known) -> "LineOutcome | asyncio.Future[Sequence[Entry]]":
        try:
            if _is_settled(unit, known):
                return LineOutcome(unit.first_id, unchanged=True)
            return self.commit.submit(unit, has_identity=True)
        except PolyglotError as error:
            return LineOutcome(unit.first_id, error=error)

    def _take_again(
        self, unit: Unit, known: Known
    ) -> "LineOutcome | asyncio.Future[Sequence[Entry]]":
        """Accept a line that may only repeat a stored order.

        Every other case gets the same answer, which reveals nothing about the stored order.
        """
        order_id = unit.first_id
        if not (known.checked or order_id in known.entries):
            return LineOutcome(order_id, error=refused("whether this id is stored is not certain"))
        if _is_there(order_id, known) and unit.members[0].accepted.created_at_given:
            taken = self._take(unit, known)
            if not (isinstance(taken, LineOutcome) and isinstance(taken.error, ConflictError)):
                return taken
        return LineOutcome(order_id, error=InvalidError(Violation("/id", _RESERVED)))

    async def _accept_identified(self, unit: Unit, known: Known) -> bool:
        """Accept a unit with an identity; return whether it was stored before."""
        if _is_settled(unit, known):
            return True
        before = await asyncio.shield(self.commit.submit(unit, has_identity=True))
        return _was_there(unit, before)


def _prepare(accepted: AcceptedOrder) -> PreparedOrder:
    return PreparedOrder(accepted, codec.encode_order(accepted.order))


def _bulk(ids: Sequence[UUID], unit_id: UUID, items: Sequence[Content], now: datetime) -> Unit:
    return Unit(
        [
            _prepare(AcceptedOrder(make_order(i, content, now), now, unit_id, len(items)))
            for i, content in zip(ids, items, strict=True)
        ]
    )


def _is_there(order_id: UUID, known: Known) -> bool:
    return order_id in known.entries or order_id in known.rows or order_id in known.dead


def _is_alive(order_id: UUID, known: Known) -> bool:
    """Return whether an order exists and is not dead-lettered."""
    raw = known.entries.get(order_id)
    return order_id in known.rows or (
        raw is not None and codec.entry_state(raw) is not EntryState.DEAD
    )


def _error_of(done: "asyncio.Future[Sequence[Entry]]") -> PolyglotError | None:
    try:
        done.result()
    except PolyglotError as error:
        return error
    return None


def _line_outcome(unit: Unit, done: "asyncio.Future[Sequence[Entry]]") -> LineOutcome:
    try:
        return LineOutcome(unit.first_id, unchanged=_was_there(unit, done.result()))
    except PolyglotError as error:
        return LineOutcome(unit.first_id, error=error)


class _There(NamedTuple):
    """An order stored before under the id of a unit's member."""

    accepted: AcceptedOrder | None
    """None for a dead letter that cannot be read, so that nothing can be compared: persisting the
    order removes the letter."""
    is_dirty: bool = False
    """If so, its unit is known, too."""


def _is_settled(unit: Unit, known: Known) -> bool:
    """Return whether the record has already committed the unit, with the same content.

    Raises:
        ConflictError: with other content, or as a shorter bulk.
        UnavailableError: only a part of it is known, and the rest cannot be looked up.
    """
    there: dict[UUID, _There] = {}
    for member in unit.members:
        order_id = member.accepted.order.id
        if (raw := known.entries.get(order_id)) is not None:
            there[order_id] = _in_cache(_decoded(raw))
        elif (row := known.rows.get(order_id)) is not None:
            there[order_id] = _There(row.accepted())
        elif (dead := known.dead.get(order_id)) is not None:
            there[order_id] = _There(codec.readable_item(dead.letter.payload))
    _check(unit, there, checked=known.checked)
    return any(not one.is_dirty and one.accepted is not None for one in there.values())


def _was_there(unit: Unit, before: Sequence[Entry]) -> bool:
    """Return whether a commit stored nothing of a unit because all of it existed before.

    Raises as `_is_settled` does.
    """
    there = {entry.accepted.order.id: _in_cache(entry) for entry in before}
    _check(unit, there, checked=False)
    return bool(there)


def _in_cache(entry: Entry) -> _There:
    return _There(entry.accepted, entry.state is EntryState.DIRTY)


def _decoded(raw: bytes) -> Entry:
    try:
        return codec.decode_entry(raw)
    except PoisonError as error:
        raise refused("a newer version holds an order under this key or id") from error


def _check(unit: Unit, there: Mapping[UUID, _There], *, checked: bool) -> None:
    """Return if none or all of the unit exists, with the same content.

    `checked` says that the record was read for the orders missing from the cache.
    """
    for position, member in enumerate(unit.members):
        other = there.get(member.accepted.order.id)
        if other is not None and not _same(member.accepted, other):
            where = f" (order {position})" if len(unit.members) > 1 else ""
            raise ConflictError(
                f"the id or idempotency key of {member.accepted.order.id}{where} already stands "
                "for an order with other content"
            )
    if not there or len(there) == len(unit.members):
        return
    # A dirty bulk is stored whole, so one with a missing part is another bulk, or damaged.
    if checked and not any(one.is_dirty for one in there.values()):
        raise ConflictError("this idempotency key was used for a shorter bulk")
    raise refused("only a part of this bulk is known; whether it is a shorter one's is not certain")


def _same(accepted: AcceptedOrder, other: _There) -> bool:
    """Return whether an order may be the stored one; a dirty one must be of the same bulk."""
    there = other.accepted
    if there is None:
        return True
    unit, unit_there = (accepted.unit_id, accepted.unit_size), (there.unit_id, there.unit_size)
    if other.is_dirty and accepted.unit_size > 1 and unit != unit_there:
        return False
    return accepted.agrees_with(there.order)
