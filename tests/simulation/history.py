"""What clients sent and what they were told: all that checkers know of a run's course."""

from dataclasses import dataclass, field
from typing import Literal

Told = Literal["acknowledged", "refused", "unknown"]


@dataclass(slots=True)
class Attempt:
    """One request that may write: what was sent, and what its client heard."""

    operation: int
    route: Literal["order", "bulk", "import"]
    names: tuple[str, ...]
    """Of the orders that were sent."""
    key: str | None
    sent_at: float
    heard_at: float = 0.0
    """When the answer came, or the client gave up; of an order or a bulk."""
    status: int | None = None
    """None: the client heard nothing."""
    ids: tuple[str, ...] = ()
    """As the answer gave them, or the client itself."""
    replayed: bool = False
    counts: tuple[int, int, int] = (0, 0, 0)
    """Of an import: accepted, unchanged, rejected."""
    not_accepted: tuple[int, ...] = ()
    """Lines that an import's answer calls refused, from 1."""
    unknown: tuple[int, ...] = ()
    """Those of them that may be stored all the same."""
    lines_read: int = 0
    errors: tuple[int, ...] = ()
    """Lines that were rejected."""
    first_line: int = 1
    """The number of the first line that was sent."""
    sent_lines: int = 0
    """How many lines went out before the client hung up."""

    @property
    def told(self) -> Told:
        """Return what the whole request's answer means."""
        if self.status is None or self.status in (500, 504):
            return "unknown"
        return "acknowledged" if self.status < 300 else "refused"


@dataclass(slots=True)
class Reading:
    """A question for one order, and its answer."""

    order_id: str
    asked_at: float
    status: int | None
    name: str = ""
    """Of the order, as the answer gave it."""


@dataclass(slots=True)
class History:
    """Everything of one run, in the order in which it was heard."""

    attempts: list[Attempt] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    acknowledged: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By id: since when a client knows of it, and the order's name."""
    answered: set[str] = field(default_factory=set)
    """Ids of which a client knows by the answer to its own request, and not by reading."""
    discarded: set[str] = field(default_factory=set)
    """Ids of which an operator may have discarded a dead letter."""
    wrong: list[str] = field(default_factory=list)
    """What was wrong the moment it was seen."""

    def acknowledge(self, order_id: str, name: str, at: float) -> None:
        """Note that a client knows now that there is this order."""
        self.acknowledged.setdefault(order_id, (at, name))
