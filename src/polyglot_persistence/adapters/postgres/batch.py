"""Which rows a batch asks for, and which of its units have to be left out: pure, no driver.

Invariant: a unit goes in whole or is left out whole.
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
    """What one attempt to persist tries to insert."""

    units: Sequence[Unit]
    rows: Mapping[UUID, AcceptedOrder]
    """By id, in the order of ids: concurrent batches lock in one order and cannot deadlock."""
    contradicting: Mapping[UUID, AcceptedOrder]
    """Orders whose unit is set aside, since an earlier unit has their id: with other content, or as
    the first of another bulk under the same key."""


def candidates(units: Sequence[Unit]) -> Candidates:
    """Choose the rows: of two orders with one id the first, and the second agrees or waits.

    Raises:
        PoisonError: a unit contradicts itself.
    """
    chosen = {one.order.id: one for one in chain.from_iterable(units)}
    if len(chosen) == sum(map(len, units)):  # no id comes twice, as in nearly every batch
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
    """Return the first order of a keyed bulk, if another bulk's stands under its id.

    It is all that this bulk has in common with one that version 0.1 accepted under the same key. A
    part of this very bulk may be stored as well (a cache that lost entries, and was swept): that
    has its moment of acceptance.
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
