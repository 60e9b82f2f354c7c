"""Tells an order that the record cannot take from a record that takes no order.

An `UnexplainedError` may have either cause. It is the order's if the record refuses this one alone,
and took another one since the attempt began, or since an earlier one that ended like this.
"""

from typing import Final
from uuid import UUID

UNITS_MAX: Final = 10_000
"""Refused units that are remembered; of one that is forgotten the next attempt is the first."""


class Refusals:
    """What one process saw the record take and refuse."""

    def __init__(self) -> None:
        self.taken = 0
        """Transactions that inserted an order."""
        self._refused: dict[UUID, int] = {}

    def is_at_fault(self, unit_id: UUID, taken_before: int) -> bool:
        """Note that a unit was refused alone; return whether the unit is at fault.

        `taken_before` is what `taken` was when the attempt began.
        """
        if unit_id not in self._refused and len(self._refused) == UNITS_MAX:
            del self._refused[next(iter(self._refused))]
        return self.taken > self._refused.setdefault(unit_id, taken_before)
