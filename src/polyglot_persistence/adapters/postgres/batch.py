"""Chooses the rows of a batch, and the units to leave out: pure, no driver.

Invariant: a unit is inserted whole or left out whole.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import PoisonError
from polyglot_persistence.ports.orders import StoredOrder

Unit = Sequence[AcceptedOrder]


class Candidates(NamedTuple):
    """The rows that one attempt to persist inserts."""

    units: Sequence[Unit]
    rows: Mapping[UUID, AcceptedOrder]
    """By id, in the order of ids: concurrent batches lock in one order and cannot deadlock."""
    contradicting: Mapping[UUID, AcceptedOrder]
    """Orders of units set aside because an earlier unit has their id: with other content, or as the
    first of another bulk under the same key."""


def candidates(units: Sequence[Unit]) -> Candidates:
    """Choose the rows: of two orders with one id the first; the second must agree or is set aside.

    Raises:
        PoisonError: a unit contradicts itself.
    """
    chosen = {one.order.id: one for one in chain.from_iterable(units)}
    if len(chosen) == sum(map(len, units)):  # no id occurs twice, as in nearly every batch
        return Candidates(units, _sorted(chosen), {})
    chosen = {}
    fitting: list[Unit] = []
    contradicting: dict[UUID, AcceptedOrder] = {}
    for unit in units:
        clashes = [one for one in unit if not _agrees(one, chosen.get(one.order.id))]
        clashes = clashes or _taken_first(unit, chosen)
        if clashes:
            contradicting.update((one.order.id, one) for one in clashes)
            continue
        fitting.append(unit)
        for one in unit:
            if not _agrees(one, chosen.setdefault(one.order.id, one)):
                raise PoisonError(
                    f"unit {one.unit_id} holds order {one.order.id} twice, with different content"
                )
    return Candidates(fitting, _sorted(chosen), contradicting)


def contradicted(
    units: Sequence[Unit], existing: Mapping[UUID, StoredOrder]
) -> tuple[list[Unit], dict[UUID, StoredOrder]]:
    """Return the units that existing rows contradict, and those rows."""
    left_out: list[Unit] = []
    conflicts: dict[UUID, StoredOrder] = {}
    for unit in units:
        against = {
            one.order.id: row
            for one in unit
            if (row := existing.get(one.order.id)) is not None and not one.agrees_with(row.order)
        } or {one.order.id: existing[one.order.id] for one in _taken_first(unit, existing)}
        if against:
            left_out.append(unit)
            conflicts.update(against)
    return left_out, conflicts


def _taken_first(
    unit: Unit, there: Mapping[UUID, AcceptedOrder] | Mapping[UUID, StoredOrder]
) -> list[AcceptedOrder]:
    """Return the first order of a keyed bulk, if another bulk's order has its id.

    This id is all that the bulk shares with one that version 0.1 accepted under the same key. A
    part of this very bulk may be stored as well (a cache that lost entries, and was swept): that
    part has the same moment of acceptance.
    """
    for one in unit:
        if one.order.id == one.unit_id and one.unit_size > 1:
            other = there.get(one.order.id)
            if other is None or other.accepted_at == one.accepted_at:
                break
            return [one] if sum(each.order.id in there for each in unit) == 1 else []
    return []


def _agrees(one: AcceptedOrder, other: AcceptedOrder | None) -> bool:
    return other is None or one is other or one.agrees_with(other.order)


_by_id = attrgetter("order.id.int")


def _sorted(chosen: Mapping[UUID, AcceptedOrder]) -> dict[UUID, AcceptedOrder]:
    return {one.order.id: one for one in sorted(chosen.values(), key=_by_id)}
