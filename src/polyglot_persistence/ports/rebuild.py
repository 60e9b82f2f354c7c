"""Rebuild ports: building a new search index under traffic, beside the other ports.

The same rules hold: every method has a deadline; `UnavailableError` means that it had no effect.

While the record notes a rebuild, outbox rows whose orders the current index has are kept as
*arrivals* until the new index has them, too.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.ports.audit import SearchContents
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import SearchIndex


class Rebuild(NamedTuple):
    """Progress of a rebuild, as stored in the record."""

    index_name: str
    """The name of the index being built."""
    position: UUID | None
    """All orders up to this id were indexed; None: none yet."""
    filled: int
    total: int
    """Number of orders at the start."""


class RebuildRecord(Protocol):
    """The record's part in a rebuild."""

    async def current(self) -> Rebuild | None:
        """Return the current rebuild; None if there is none."""

    async def begin(self, index: str) -> Rebuild:
        """Note that an index is being built, replacing any other; forget old arrivals.

        If an order's outbox row was deleted before, `orders_after` returns the order; the row of
        any other becomes an arrival.
        """

    async def orders_after(self, position: UUID | None, orders_max: int) -> Sequence[StoredOrder]:
        """Return the next orders by id."""

    async def advance(self, position: UUID, orders: int) -> None:
        """Note that this many more orders, up to this id, were indexed durably."""

    async def orders_between(self, first: UUID, last: UUID) -> Sequence[StoredOrder]:
        """Return the orders of a range."""

    def claim_arrivals(self, orders_max: int) -> AbstractAsyncContextManager[Sequence[StoredOrder]]:
        """Lock arrivals and yield their orders; leaving the context normally deletes them."""

    async def outbox_end(self) -> int:
        """Return the id of an outbox row after all those committed until now."""

    async def outbox_between(
        self, after: int, end: int, orders_max: int
    ) -> tuple[Sequence[StoredOrder], int] | None:
        """Return the orders of the next outbox rows up to `end` and the last row's id, if any."""

    async def end(self) -> None:
        """Forget the rebuild and its arrivals."""


class RebuildTarget(Protocol):
    """The index being built, and its swap with the current one."""

    @property
    def building(self) -> SearchIndex:
        """The index being built: it takes documents and is not searched."""

    @property
    def contents(self) -> SearchContents:
        """Contents of the index being built, as of the last `show`."""

    async def current_name(self) -> str | None:
        """Return the name of the index that searches use; None if it is missing or unusable.

        Raises:
            UnavailableError: it cannot be determined now, or the index is of a newer form.
        """

    async def building_name(self) -> str | None:
        """Return the name of the index being built; None as above."""

    async def lost_parts(self) -> Collection[str]:
        """Return the indexes, in use or being built, of which no node has some part now."""

    async def adopt_settings(self) -> None:
        """Give the current index those settings of a new one that can be changed in place."""

    async def begin(self) -> str:
        """Create an empty index to be built, replacing any other; return its name."""

    async def show(self) -> None:
        """Refresh the index being built, so that `contents` reflects everything indexed so far.

        Searches after a swap find all of it, too.
        """

    def frozen(self) -> AbstractAsyncContextManager[None]:
        """Block writes to the current index, by all processes, inside the context.

        Writes meanwhile are refused, or wait. A crash inside may leave the block until a rebuild
        ends.
        """

    async def swap(self) -> None:
        """Make the built index the current one, in one step."""

    async def release(self) -> None:
        """Let another process build."""

    async def clean_up(self) -> None:
        """Remove replaced and abandoned indexes."""
