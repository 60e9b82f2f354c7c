"""The port of the write-behind cache; what is common to all ports is in `ports/__init__.py`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.state import StoreState


class PreparedOrder(NamedTuple):
    """An accepted order with the bytes that stand for it (`codec.encode_order`)."""

    accepted: AcceptedOrder
    body: bytes


class Unit(NamedTuple):
    """What is accepted all or nothing: one order, or a bulk whose members share the unit id."""

    members: Sequence[PreparedOrder]


class AcceptReply(NamedTuple):
    """What the cache answered to a batch of units."""

    found: dict[UUID, bytes]
    """By order id, the raw entries that were there before.

    A unit with any member in here was not stored."""
    backlog: int
    """Dirty orders after this batch."""
    durable: bool
    """Whether the server that took the batch is known to fsync before it answers, and never to
    evict a dirty entry."""
    reign: str
    """As in `CacheRead`: of the server that took the batch."""


class CacheRead(NamedTuple):
    """Entries and the copy of the cache epoch, read together in one step."""

    entries: Sequence[bytes | None]
    epoch: str | None
    """The copy that was made under this reign; None if there is none."""
    reign: str
    """An opaque name of the time in which one server is the primary of one data set. A restart, a
    promotion, a demotion and a load of other data end it. No name recurs."""


class Backlog(NamedTuple):
    """How much is dirty, and since when the oldest is."""

    orders: int
    oldest_accepted_at: datetime | None


class Settled(NamedTuple):
    """What an entry becomes once the fate of an order is committed in PostgreSQL."""

    state: EntryState
    accepted: AcceptedOrder
    decided: AcceptedOrder | None = None
    """The order whose fate it is, where that is not `accepted`: the record may hold another."""


class Cache(Protocol):
    """The write-behind cache. A dirty entry has no TTL and is never evicted."""

    async def accept(self, units: Sequence[Unit]) -> AcceptReply:
        """Store each unit as dirty entries if none of its members is there, in one atomic step.

        Raises:
            UnavailableError: nothing was stored (away, or full).
            UnknownOutcomeError: some or all may be stored.
        """

    async def read(self, ids: Sequence[UUID]) -> CacheRead:
        """Return the raw entry of each id, in order, and the epoch's copy, in one atomic step."""

    async def backfill(self, orders: Sequence[AcceptedOrder]) -> None:
        """Store persisted orders as clean entries with a TTL, only where there is no entry."""

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Overwrite entries as clean or dead-lettered with a TTL and take them off the dirty set.

        A dirty entry is overwritten only if it says what `accepted` or `decided` says: any other
        was accepted, too, and its fate is still open. A clean entry stays clean. Where there is no
        entry, a clean one is made, and no dead-lettered one: its letter may be discarded by now.
        An entry in a state of a newer version stays as it is.

        One step for neighbours of one unit: the rest of a condemned bulk must not be found dirty,
        and be persisted. Several units may be settled one after another.

        Works at the memory limit. Idempotent.
        """

    async def forget_dead(self, ids: Sequence[UUID]) -> None:
        """Remove those of the entries that are dead-lettered."""

    async def dirty_before(self, bound: datetime, orders_max: int) -> Sequence[Entry]:
        """Return the oldest dirty entries accepted before `bound`, whole units.

        About `orders_max`: a unit is not divided to keep to it. A dirty id without an entry, or
        whose entry is clean or dead-lettered, is taken off the dirty set. An entry that this
        version cannot read is passed over.
        """

    async def backlog(self) -> Backlog:
        """Return the size and age of the dirty set."""

    async def reigns(self, reign: str) -> bool:
        """Return whether the server still is the primary under this reign and evicts nothing dirty.

        Then it has held, ever since `read` named the reign, whatever it accepted.
        """

    async def survives_failover(self, reign: str) -> bool:
        """Return whether what was accepted under this reign outlives the loss of the server.

        So it is if the server, asked now, is durable (`AcceptReply.durable`), and has no replica,
        and had none within the last hour; or if all of its replicas have confirmed it, those
        included that have left within the last hour, as far as a `ping` has counted them.
        """

    async def begin_warming(self, token: str) -> None:
        """Store a token and remove the epoch's copy, in one atomic step.

        The token is gone if the cache is emptied or `end_warming` is called.
        """

    async def end_warming(self) -> None:
        """Remove the token: what was seen until now no longer proves that a copy may be made."""

    async def copy_epoch(self, epoch: str, token: str, reign: str) -> bool:
        """Store the epoch's copy for a reign if the token is still there; return whether it was."""

    async def ping(self) -> StoreState:
        """Ask for the server's version and durability."""
