"""A dead letter: an order that can get no further, parked with its reason.

Invariant: the payload is stored unchanged, so that a later version can read it again.
"""

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Stage(enum.Enum):
    """The stage in which an order was condemned.

    A stage known only to a newer version keeps its name and is none of these.
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
        """Whether this version knows the stage."""
        return self in _KNOWN


_KNOWN = frozenset(Stage)


class DeadLetter(NamedTuple):
    """One order that can never get further, parked with its reason."""

    order_id: UUID | None
    """None if the payload could not be read."""
    unit_id: UUID | None
    payload: bytes
    """The message item, unchanged (or in the form that `codec` would write)."""
    reason: str
    stage: Stage
    attempts: int


class DeadLetterRow(NamedTuple):
    """A dead letter as stored in PostgreSQL."""

    id: int
    letter: DeadLetter
    first_at: datetime
    last_at: datetime


class LetterFilter(NamedTuple):
    """Selects dead letters; None matches everything."""

    reason: str | None = None
    """Text contained in the reason; case is ignored."""
    stage: Stage | None = None
    order_id: UUID | None = None
    unit_id: UUID | None = None
    since: datetime | None = None
    """Last failed at this moment or later."""
    until: datetime | None = None
    """Last failed before this moment."""


class LetterGroup(NamedTuple):
    """Dead letters of one stage whose reasons differ in ids and positions only."""

    stage: Stage
    reason: str
    letters: int
    last_at: datetime


class LetterCounts(NamedTuple):
    """Number of dead letters, in all and by group."""

    letters: int
    groups: Sequence[LetterGroup]
    """The largest first; cut if there are very many."""
