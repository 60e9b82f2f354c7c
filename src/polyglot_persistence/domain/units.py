"""Batches as the units that they are made of."""

from collections.abc import Sequence
from uuid import UUID

from polyglot_persistence.domain.order import AcceptedOrder


def whole_units(batch: Sequence[AcceptedOrder]) -> list[list[AcceptedOrder]]:
    """Return the batch as its units, in order; a unit that came twice is two units."""
    units: list[list[AcceptedOrder]] = []
    open_units: dict[tuple[UUID, int], list[AcceptedOrder]] = {}
    for accepted in batch:
        if accepted.unit_size == 1:
            units.append([accepted])
            continue
        key = accepted.unit_id, accepted.unit_size  # a key may have been used for another bulk
        unit = open_units.get(key)
        if unit is None or len(unit) == accepted.unit_size:
            unit = open_units[key] = []
            units.append(unit)
        unit.append(accepted)
    return units
