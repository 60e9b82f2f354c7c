"""Division of batches into their units."""

from collections.abc import Sequence
from uuid import UUID

from polyglot_persistence.domain.order import AcceptedOrder


def whole_units(batch: Sequence[AcceptedOrder]) -> list[list[AcceptedOrder]]:
    """Return the units of the batch, in order; a unit that occurs twice is two units."""
    units: list[list[AcceptedOrder]] = []
    open_units: dict[tuple[UUID, int], list[AcceptedOrder]] = {}
    for accepted in batch:
        if accepted.unit_size == 1:
            units.append([accepted])
            continue
        key = accepted.unit_id, accepted.unit_size  # the key may also stand for another bulk
        unit = open_units.get(key)
        if unit is None or len(unit) == accepted.unit_size:
            unit = open_units[key] = []
            units.append(unit)
        unit.append(accepted)
    return units
