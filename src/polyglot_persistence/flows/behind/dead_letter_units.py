"""Grouping of dead letters into their units.

Invariant: letters with the same id, moment of acceptance and size form a unit. One key can stand
for a single order, for a bulk, and for other bulks under the same unit id.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetterRow
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import PoisonError

PART_UNITS = 100
"""Unit ids that are handled and logged together."""

PART_UNREADABLE = 20
"""The same limit for letters without a unit: each may be a whole message."""

BATCH_ORDERS = 1_000
"""Orders in one persist transaction, unless a unit is larger."""

Member: TypeAlias = tuple[AcceptedOrder, list[DeadLetterRow]]
"""An order of a unit, with the letters that stand for it."""


def without_last_unit_id(page: Sequence[DeadLetterRow]) -> Sequence[DeadLetterRow]:
    """Return the page without its last unit id, which may continue below it; never an empty one."""
    last = page[-1].letter.unit_id
    end = len(page)
    while last is not None and end > 0 and page[end - 1].letter.unit_id == last:
        end -= 1
    return page[:end] or page


def parts(page: Sequence[DeadLetterRow]) -> Iterator[Sequence[DeadLetterRow]]:
    """Yield letters of a bounded number of unit ids, each in one part only.

    Groups by unit id: a page may hold only the beginnings of payloads, which do not show the unit.
    """
    of_unit_ids: dict[UUID | int, list[DeadLetterRow]] = {}
    for row in page:
        of_unit_ids.setdefault(row.letter.unit_id or row.id, []).append(row)
    part: list[DeadLetterRow] = []
    unit_ids = unreadable = 0
    for rows in of_unit_ids.values():
        part += rows
        unit_ids += 1
        unreadable += rows[0].letter.unit_id is None
        if unreadable == PART_UNREADABLE or unit_ids == PART_UNITS:
            yield part
            part = []
            unit_ids = unreadable = 0
    if part:
        yield part


class UnitsOf:
    """The units of some letters; `in` tests whether another letter belongs to one of them.

    An unreadable letter belongs to every unit of its unit id. A single order and a bulk never go
    together: the ids distinguish them even for an unreadable letter.
    """

    def __init__(self, rows: Iterable[DeadLetterRow]) -> None:
        self._units: set[tuple[UUID, datetime, int]] = set()
        self._of_any: set[tuple[UUID | None, bool]] = set()
        self._of_all: set[tuple[UUID | None, bool]] = set()
        for row in rows:
            unit = _unit_of(row)
            self._of_any.add(_unit_id_of(row))
            if unit is None:
                self._of_all.add(_unit_id_of(row))
            else:
                self._units.add(unit)

    def __contains__(self, row: DeadLetterRow) -> bool:
        if row.letter.unit_id is None:
            return False
        unit = _unit_of(row)
        if unit is None:
            return _unit_id_of(row) in self._of_any
        return unit in self._units or _unit_id_of(row) in self._of_all


def _unit_id_of(row: DeadLetterRow) -> tuple[UUID | None, bool]:
    """Return a letter's unit id, and whether it is that of a single order."""
    return row.letter.unit_id, row.letter.unit_id == row.letter.order_id


def _unit_of(row: DeadLetterRow) -> tuple[UUID, datetime, int] | None:
    """Return the unit of a letter that can be read."""
    accepted = readable(row)
    if accepted is None:
        return None
    return accepted.unit_id, accepted.accepted_at, accepted.unit_size


def readable(row: DeadLetterRow) -> AcceptedOrder | None:
    """Return the order of a whole letter if this version can read it."""
    return codec.readable_item(row.letter.payload)


def units_of(
    rows: Sequence[DeadLetterRow],
) -> tuple[list[list[Member]], list[tuple[DeadLetterRow, str]]]:
    """Return the complete units among the letters, and the remaining letters with the reason.

    Letters of one unit id can stem from several units: other content under the same key. Each
    letter of a single order is a unit of its own.
    """
    units: dict[tuple[UUID, datetime, int, int], dict[UUID, Member]] = {}
    unfit: list[tuple[DeadLetterRow, str]] = []
    for row in rows:
        try:
            accepted = codec.decode_item(row.letter.payload)
        except PoisonError as error:
            unfit.append((row, str(error)))
            continue
        size = accepted.unit_size
        key = (accepted.unit_id, accepted.accepted_at, size, row.id if size == 1 else 0)
        member = units.setdefault(key, {}).setdefault(accepted.order.id, (accepted, []))
        if member[0] == accepted:
            member[1].append(row)
        else:
            unfit.append((row, "another letter of its unit has the same id and other content"))
    whole = []
    for (unit_id, _, size, _), members in units.items():
        if len(members) == size:
            whole.append(list(members.values()))
            continue
        why = f"unit {unit_id} has {len(members)} of {size} orders among the dead letters"
        unfit += [(row, why) for _, those in members.values() for row in those]
    return whole, unfit


def batches(units: Sequence[list[Member]]) -> Iterator[list[Member]]:
    """Yield whole units together, up to the batch size."""
    batch: list[Member] = []
    for unit in units:
        if batch and len(batch) + len(unit) > BATCH_ORDERS:
            yield batch
            batch = []
        batch = batch + unit
    if batch:
        yield batch
