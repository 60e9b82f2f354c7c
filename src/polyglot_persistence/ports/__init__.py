"""The seams: what the flows need of each store. These docstrings are the contract.

One contract suite per port (`tests/contract`) runs over every adapter of it.

Common to all:

- Every method has a deadline of its own and never waits longer.
- `UnavailableError` means that the call had no effect and will have none; `UnknownOutcomeError`
  that it may have had. A method that only reads raises only the former.
- Cancelling a caller cancels no effect that others share, and leaves no reply behind for the next.
- `ping` raises `UnavailableError`, or tells about the store; it is what readiness and doctor ask.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.domain.dead_letter import (
    DeadLetter,
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
)
from polyglot_persistence.domain.order import AcceptedOrder, Order
from polyglot_persistence.domain.search import Facets, NameOrders, SearchQuery
from polyglot_persistence.domain.terms import QueryWord
from polyglot_persistence.ports.cache import AcceptReply as AcceptReply
from polyglot_persistence.ports.cache import Backlog as Backlog
from polyglot_persistence.ports.cache import Cache as Cache
from polyglot_persistence.ports.cache import CacheRead as CacheRead
from polyglot_persistence.ports.cache import PreparedOrder as PreparedOrder
from polyglot_persistence.ports.cache import Settled as Settled
from polyglot_persistence.ports.cache import Unit as Unit
from polyglot_persistence.ports.state import StoreState as StoreState


class Clock(Protocol):
    """Time, injected so that tests need not wait for it."""

    def now(self) -> datetime:
        """Return the current moment in UTC, to the microsecond."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps and goes on while the machine is suspended."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


# --- queue -----------------------------------------------------------------------------------


QUEUE_NAME = "order_queue"
"""As the Go peer calls it, in every broker."""

TRACE_HEADERS = ("traceparent", "tracestate")
"""W3C Trace Context, Level 1."""


class Message(NamedTuple):
    """A batch of orders on its way to a worker."""

    body: bytes
    orders: int
    accepted_at: datetime
    """Of its oldest order."""
    schema: int
    """`codec.SCHEMA_VERSION` of the writer."""
    trace: Mapping[str, str] = {}
    """The publisher's `tracing.carrier()`: headers beside the body, which older workers ignore."""


class Delivery(NamedTuple):
    """A message handed to this consumer until it is acknowledged, released, or its channel dies."""

    tag: object
    """The adapter's own handle."""
    body: bytes
    orders: int
    """As the header says; 0 if it says none. Only a hint."""
    accepted_at: datetime | None
    schema: int
    redeliveries: int
    """How often it was delivered before: a lower bound, and 0 only if it certainly never was."""
    trace: Mapping[str, str] = {}
    """As the publisher gave it."""


class Consumer(Protocol):
    """One worker's end of the queue, valid until it raises."""

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Return what is there, at least one delivery unless `wait_seconds` pass without.

        Held deliveries are bounded in orders by what was given to `consume`.

        Raises:
            UnavailableError: the channel is gone; all unacknowledged deliveries will come again.
        """

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Remove them from the queue. On a dead channel it does nothing: they come again."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand them back for any worker to take at once."""


class Queue(Protocol):
    """The durable queue between API and worker: at-least-once, roughly first in, first out."""

    async def publish(self, message: Message) -> None:
        """Return when the queue has made the message durable (publisher confirm).

        Raises:
            UnavailableError: not sent, or refused: it will never be delivered.
            UnknownOutcomeError: sent and not confirmed in time.
        """

    def consume(self, *, orders_max: int) -> AbstractAsyncContextManager[Consumer]:
        """Open a channel that holds at most about `orders_max` unacknowledged orders.

        Leaving the context closes the channel and hands back whatever is unacknowledged.
        """

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        """Return how long a message may be neither ready nor received, once it was delivered.

        So long, at most, from its delivery until it is done, counted by `ready`, or received as one
        that was delivered before; `hold_seconds` is how long workers hold what they received. One
        worker may stand still or die meanwhile.
        """

    async def ready(self) -> int:
        """Return how many messages no consumer holds.

        Raises:
            UnavailableError: the queue is away, or cannot count.
        """

    async def ping(self) -> StoreState:
        """Ask for the broker's version."""


# --- system of record ------------------------------------------------------------------------


class StoredOrder(NamedTuple):
    """A row of the record."""

    order: Order
    accepted_at: datetime
    persisted_at: datetime


class Found(NamedTuple):
    """What the record knows of some ids, and the cache epoch, read in one statement."""

    orders: dict[UUID, StoredOrder]
    dead: dict[UUID, DeadLetterRow]
    """Dead letters of ids that have no row; stage index never is here."""
    epoch: str
    """Empty if none was created: no copy ever equals it."""


class Persisted(NamedTuple):
    """The outcome of one persist transaction."""

    stored: dict[UUID, StoredOrder]
    """Every order of the batch that is in the record now, as it stands there."""
    inserted: frozenset[UUID]
    """Those of them that this transaction added: they alone fed rollup and outbox."""
    outbox_id: int | None
    """The outbox row with the inserted ids, if any."""
    conflicts: dict[UUID, StoredOrder]
    """Orders of refused units whose row says something else, or is another unit's. Such a unit was
    left out whole."""


class OutboxBatch(NamedTuple):
    """Persisted orders that are not known to be searchable."""

    orders: Sequence[StoredOrder]
    gone: Sequence[UUID] = ()
    """Ids that are no orders: a document of one is to be removed."""
    new: frozenset[UUID] = frozenset()
    """Those of the orders that wait since they were persisted, and not to be indexed again."""


class Progress(NamedTuple):
    """How far the record is, read in one statement whose cost does not grow with the orders."""

    persisted: int
    """Orders in the record."""
    outbox_orders: int
    outbox_oldest: datetime | None
    dead_letters: int
    """At most as many as were to be counted."""
    latest_dead_letter: int | None
    """The highest id of one; it changes with every new letter."""
    view_refreshed_at: datetime | None


class Lead(Protocol):
    """A role that this process has, alone."""

    async def confirm(self) -> None:
        """Return if the role is still this process's.

        Raises:
            UnavailableError: it may be another's by now; leave the context.
        """


class OrderStore(Protocol):
    """PostgreSQL, the system of record."""

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        """Insert whole units with rollup and outbox row, in one transaction.

        Idempotent by order id: a row that exists with the same content counts as stored and feeds
        nothing. A unit with a member whose row has other content is left out and reported, and so
        is a keyed bulk whose first order alone has a row, which was accepted at another moment:
        that is another bulk's.
        Dead letters of inserted ids are removed in the same transaction, unless they stand for
        another order under that id. The batch may hold an id
        twice; the second is treated as if it came in a later batch.

        Raises:
            UnavailableError: rolled back, or not even begun; the store may be away.
            UnexplainedError: likewise, and one of the units may be at fault.
            UnknownOutcomeError: the commit's answer was lost; persist it again.
            PoisonError: the store can never take this batch; one of its units is at fault.
        """

    async def find(self, ids: Sequence[UUID]) -> Found:
        """Return rows, dead letters and the epoch in one statement, which only a primary runs."""

    async def page(
        self, before: tuple[datetime, UUID] | None, orders_max: int
    ) -> Sequence[StoredOrder]:
        """Return orders by (created_at, id), newest first, strictly before the given position."""

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters.

        One that is there already (order, stage, payload) counts up and has the new reason.
        """

    async def attempted(self, subjects: Sequence[str]) -> frozenset[str]:
        """Return those of the subjects of which an attempt is not known to be survived."""

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """Count one more attempt at what may kill its worker; return how many there are now.

        It outlives the caller's death, but perhaps not one of PostgreSQL at the same moment.
        """

    async def take_back_attempts(self, subjects: Sequence[str]) -> None:
        """Count one attempt less: whoever made it lives, and it was cut short all the same."""

    async def end_attempts(self, subjects: Sequence[str]) -> None:
        """Forget all attempts, for one was survived; and those of anything older than a day."""

    def claim_outbox(
        self, older_than_seconds: float, orders_max: int
    ) -> AbstractAsyncContextManager[OutboxBatch]:
        """Lock outbox rows that nobody else works on and yield their orders (maybe none).

        Leaving the context normally deletes the rows; an exception leaves them.
        """

    async def outbox_done(self, outbox_ids: Sequence[int]) -> Sequence[int]:
        """Delete outbox rows whose orders are searchable; return which were still there."""

    async def progress(self, *, dead_letters_max: int) -> Progress:
        """Return how far the record is, counting at most so many dead letters."""

    async def epoch(self) -> str | None:
        """Return the cache epoch, None if none was created.

        It names the server's timeline: after a failover that lost the latest epoch it is another.
        """

    async def found_epoch(self) -> tuple[str, bool]:
        """Return the cache epoch and whether this call created it."""

    async def new_epoch(self) -> str:
        """Raise the cache epoch: from its commit on, no older copy proves an absence."""

    def lead(self, role: str) -> "AbstractAsyncContextManager[Lead | None]":
        """Try to be the only process in a role (advisory lock); yield None if another is.

        The role lasts as long as the context and the connection behind it.
        """

    async def ping(self) -> StoreState:
        """Ask for the server's version and whether its commits are durable."""


class DeadLetters(Protocol):
    """What operators do with the dead letters. `OrderStore.bury` writes them."""

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        """Return letters with a lower id than `before`, the highest first; payloads may be cut."""

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        """Return how many letters match, by stage and reason."""

    async def read(self, letter_ids: Sequence[int]) -> Sequence[DeadLetterRow]:
        """Return those of the letters that are there, whole, by id."""

    async def of_units(self, unit_ids: Sequence[UUID]) -> Sequence[int]:
        """Return the ids of all letters of these units."""

    async def discard(self, letter_ids: Sequence[int]) -> None:
        """Delete letters. One that is just being deleted by others is left to them."""

    async def reindex(self, letter_ids: Sequence[int]) -> None:
        """Move letters of stage index, and no others, to the outbox in one transaction."""

    def turn(self) -> AbstractAsyncContextManager[Lead]:
        """Wait to be the only one, of all processes, who replays or discards.

        Raises:
            UnavailableError: another is at it for too long.
        """


# --- search ----------------------------------------------------------------------------------


class Hit(NamedTuple):
    """One order that matched."""

    order: Order
    rank: int
    """How well its name matches (`ranking.Ranking`); 0 if no words were asked for."""


class SearchResult(NamedTuple):
    """A page of hits in the order that was asked for, and how many there are in all."""

    total: int
    hits: Sequence[Hit]
    facets: Facets | None = None
    total_is_exact: bool = True
    """Else there are more than that."""


class IndexFailure(NamedTuple):
    """One document that the index can never take."""

    order_id: UUID
    reason: str


class SearchIndex(Protocol):
    """A projection of the record for full-text search. Disposable: rebuilt from the record."""

    async def index(self, orders: Sequence[StoredOrder]) -> Sequence[IndexFailure]:
        """Add or replace the documents durably; return those that can never be indexed.

        Idempotent by order id. They become visible to `search` within about a second.

        Raises:
            UnavailableError: any of them may be missing; index all of them again.
        """

    async def remove(self, ids: Sequence[UUID]) -> None:
        """Remove documents durably, whether they are there or not.

        Raises:
            UnavailableError: any of them may be there still; remove all of them again.
        """

    async def search(self, query: SearchQuery) -> SearchResult:
        """Return a page of the matches; any text is a query, none is syntax.

        Every word must match: exactly, as a beginning, as a part of a word, or with a typo, in that
        order of preference (`ranking.Tier`).

        Raises:
            UnavailableError: the index is missing or away (never an empty success).
        """

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return names that match every word, the most ordered first; none for no words.

        Of a name that very many orders match, the counts may be those of a part of them.

        Raises:
            UnavailableError: the index is missing or away.
        """

    async def indexed_at(self, order_id: UUID) -> datetime | None:
        """Return when the order was indexed if a search can find it now."""

    async def count(self) -> int:
        """Return how many orders a search can find."""

    async def exists(self) -> bool:
        """Return whether there is an index that this version can use."""

    async def ensure(self) -> bool:
        """Create the index, empty, if it is missing or unusable; return whether it was."""

    async def ping(self) -> StoreState:
        """Ask for the engine's version and the index's health."""
