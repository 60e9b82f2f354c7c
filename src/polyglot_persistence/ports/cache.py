"""The port of the write-behind cache; `ports/__init__.py` states the rules common to all ports."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.state import StoreState


class PreparedOrder(NamedTuple):
    """An accepted order with its encoded bytes (`codec.encode_order`)."""

    accepted: AcceptedOrder
    body: bytes


class Unit(NamedTuple):
    """An all-or-nothing unit: one order, or a bulk whose members share the unit id."""

    members: Sequence[PreparedOrder]

    @property
    def first_id(self) -> UUID:
        """The id of the first order, or of the only one."""
        return self.members[0].accepted.order.id

    @property
    def ids(self) -> list[UUID]:
        """The ids of all orders."""
        return [member.accepted.order.id for member in self.members]


class AcceptReply(NamedTuple):
    """The cache's reply to a batch of units."""

    found: dict[UUID, bytes]
    """By order id, the raw entries stored before.

    A unit with any member in here was not stored.
    """
    backlog: int
    """Dirty orders after this batch."""
    durable: bool
    """Whether the server that took the batch is known to fsync before it answers, and never to
    evict a dirty entry."""
    reign: str
    """As in `CacheRead`: the reign of the server that took the batch."""


class CacheRead(NamedTuple):
    """Entries and the copy of the cache epoch, read together in one step."""

    entries: Sequence[bytes | None]
    epoch: str | None
    """The copy made under this reign; None if there is none."""
    reign: str
    """An opaque name of the time in which one server is the primary of one data set. A restart, a
    promotion, a demotion and a load of other data end it. No name recurs."""
    has_rivals: bool = False
    """Whether another server has, or had lately, the same data: it may be, or have been, the
    primary of other processes."""


class Backlog(NamedTuple):
    """Number of dirty entries, and the moment of the oldest."""

    orders: int
    oldest_accepted_at: datetime | None


class Settled(NamedTuple):
    """The new state of an entry once the fate of an order is committed in PostgreSQL."""

    state: EntryState
    accepted: AcceptedOrder
    decided: AcceptedOrder | None = None
    """The decided order, where that is not `accepted`: the record may hold another."""


class Cache(Protocol):
    """The write-behind cache. A dirty entry has no TTL and is never evicted."""

    async def accept(self, units: Sequence[Unit]) -> AcceptReply:
        """Store each unit as dirty entries if none of its members exists, in one atomic step.

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

        A dirty entry is overwritten only if it equals `accepted` or `decided`: any other was
        accepted, too, and its fate is still open. A clean entry stays clean. Where there is no
        entry, only a clean one is made: the letter of a dead-lettered one may be discarded by now.
        An entry in a state of a newer version stays as it is.

        Neighbors of one unit are settled in one step: otherwise the rest of a condemned bulk could
        be found dirty and persisted. Several units may be settled one after another.

        Works at the memory limit. Idempotent.
        """

    async def forget_dead(self, ids: Sequence[UUID]) -> None:
        """Remove the dead-lettered entries among the ids."""

    async def dirty_before(self, bound: datetime, orders_max: int) -> Sequence[Entry]:
        """Return the oldest dirty entries accepted before `bound`, whole units.

        Returns about `orders_max`: a unit is not divided to keep to it. A dirty id without an
        entry, or with a clean or dead-lettered one, is taken off the dirty set. An entry that this
        version cannot read is passed over.
        """

    async def backlog(self) -> Backlog:
        """Return the size and age of the dirty set."""

    async def reigns(self, reign: str, epoch: str | None) -> bool:
        """Return whether the server still is the primary under this reign and has this copy.

        False if it may evict dirty entries. If True, it has kept every accepted order ever since
        `read` returned both: a process that has seen such a policy removes the copy.
        """

    async def survives_failover(self, reign: str) -> bool:
        """Return whether orders accepted under this reign outlive the loss of the server.

        They do if the server is durable now (`AcceptReply.durable`) and has had no replica within
        the last hour; or if all of its replicas have confirmed them. Replicas that left within the
        last hour count, as far as a `ping` has seen them.
        """

    async def begin_warming(self, token: str) -> None:
        """Store a token and remove the epoch's copy, in one atomic step.

        The token is gone if the cache is emptied or `end_warming` is called.
        """

    async def end_warming(self) -> None:
        """Remove the token: earlier observations no longer allow a copy."""

    async def copy_epoch(self, epoch: str, token: str, reign: str) -> bool:
        """Store the epoch's copy for a reign if the token is still there; return whether it was."""

    async def ping(self) -> StoreState:
        """Return the server's version and durability."""
