"""A dead letter: an order that can get no further, parked with its reason.

Invariant: whoever condemns gives the payload as it came, so that a later version can read it anew.
"""

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Stage(enum.Enum):
    """Where an order was condemned.

    A stage that only a newer version knows keeps its name and is none of these.
    """

    DECODE = "decode"
    PERSIST = "persist"
    INDEX = "index"

    @classmethod
    def _missing_(cls, value: object) -> "Stage":
        newer = object.__new__(cls)
        newer._name_ = "NEWER"
        newer._value_ = str(value)
        return newer

    @property
    def is_known(self) -> bool:
        """Whether this version knows what became of the order there."""
        return self in _KNOWN


_KNOWN = frozenset(Stage)


class DeadLetter(NamedTuple):
    """One order that can never get further, parked with its reason."""

    order_id: UUID | None
    """None if the payload could not be read."""
    unit_id: UUID | None
    payload: bytes
    """The message item as it came (or as `codec` would write it)."""
    reason: str
    stage: Stage
    attempts: int


class DeadLetterRow(NamedTuple):
    """A dead letter as PostgreSQL has it."""

    id: int
    letter: DeadLetter
    first_at: datetime
    last_at: datetime


class LetterFilter(NamedTuple):
    """Which dead letters are meant; what is None may be anything."""

    reason: str | None = None
    """Text that the reason holds; upper and lower case count as equal."""
    stage: Stage | None = None
    order_id: UUID | None = None
    unit_id: UUID | None = None
    since: datetime | None = None
    """Condemned, or tried in vain, at this moment or later the last time."""
    until: datetime | None = None
    """And before this one."""


class LetterGroup(NamedTuple):
    """Dead letters of one stage whose reasons differ in ids and positions only."""

    stage: Stage
    reason: str
    letters: int
    last_at: datetime


class LetterCounts(NamedTuple):
    """How many dead letters there are, and of which kinds."""

    letters: int
    groups: Sequence[LetterGroup]
    """The largest first; not all, if there are very many."""
