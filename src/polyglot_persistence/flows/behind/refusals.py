"""Distinguishes an order that the record cannot take from a record that takes no orders.

An `UnexplainedError` may have either cause. The order is at fault if the record refuses it alone,
and has taken another order since this attempt began, or since an earlier attempt that ended in the
same way.
"""

from typing import Final
from uuid import UUID

UNITS_MAX: Final = 10_000
"""Maximum number of refused units remembered; the next attempt at a forgotten one is its first."""


class Refusals:
    """The orders that one process has seen the record take and refuse."""

    def __init__(self) -> None:
        self.taken = 0
        """Transactions that inserted an order."""
        self._refused: dict[UUID, int] = {}

    def is_at_fault(self, unit_id: UUID, taken_before: int) -> bool:
        """Note that a unit was refused alone; return whether the unit is at fault.

        `taken_before` is the value of `taken` when the attempt began.
        """
        if unit_id not in self._refused and len(self._refused) == UNITS_MAX:
            del self._refused[next(iter(self._refused))]
        return self.taken > self._refused.setdefault(unit_id, taken_before)
