"""What it takes to build a search index anew while traffic flows, beside `ports`.

The same rules hold: every method has a deadline; `UnavailableError` means that it had no effect.

While the record says that an index is being built, outbox rows that the current index has are kept
as *arrivals* until the new index has them, too.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol
from uuid import UUID

from polyglot_persistence.ports.audit import SearchContents
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import SearchIndex


class Rebuild(NamedTuple):
    """How far the building of an index is, as the record remembers it."""

    index_name: str
    """The name of the index that is being built."""
    position: UUID | None
    """All orders up to this id were indexed; None: none yet."""
    filled: int
    total: int
    """How many orders there were when it began."""


class RebuildRecord(Protocol):
    """The record's part in a rebuild."""

    async def current(self) -> Rebuild | None:
        """Return the rebuild under way; None if there is none."""

    async def begin(self, index: str) -> Rebuild:
        """Remember that an index is being built, instead of any other; forget old arrivals.

        An order whose outbox row was deleted before is in what `orders_after` gives; the row of
        any other becomes an arrival.
        """

    async def orders_after(self, position: UUID | None, orders_max: int) -> Sequence[StoredOrder]:
        """Return the next orders by id."""

    async def advance(self, position: UUID, orders: int) -> None:
        """Remember that so many more orders, up to this id, were indexed durably."""

    async def orders_between(self, first: UUID, last: UUID) -> Sequence[StoredOrder]:
        """Return the orders of a range."""

    def claim_arrivals(self, orders_max: int) -> AbstractAsyncContextManager[Sequence[StoredOrder]]:
        """Lock arrivals and yield their orders; leaving the context normally deletes them."""

    async def outbox_end(self) -> int:
        """Return the id of an outbox row after all that were committed until now."""

    async def outbox_between(
        self, after: int, end: int, orders_max: int
    ) -> tuple[Sequence[StoredOrder], int] | None:
        """Return the orders of the next outbox rows up to `end` and the last row's id, if any."""

    async def end(self) -> None:
        """Forget the rebuild and its arrivals."""


class RebuildTarget(Protocol):
    """The index that is being built, and its way into the place of the current one."""

    @property
    def building(self) -> SearchIndex:
        """The index that is being built: it takes documents, and is searched by nobody."""

    @property
    def contents(self) -> SearchContents:
        """What the index that is being built holds, as of the last `show`."""

    async def current_name(self) -> str | None:
        """Return the name of the index that searches use; None if it is missing or unusable.

        Raises:
            UnavailableError: it cannot be told for now, or the index is of a newer form.
        """

    async def building_name(self) -> str | None:
        """Return the name of the index that is being built; None as above."""

    async def begin(self) -> str:
        """Create an empty index to be built, instead of any other; return its name."""

    async def show(self) -> None:
        """Let everything indexed until now be part of `contents`, and of searches after a swap."""

    def frozen(self) -> AbstractAsyncContextManager[None]:
        """While the context lasts nothing is written to the current index, by no process.

        What is tried meanwhile is refused, or waits. A death inside may leave it like this until
        a rebuild ends.
        """

    async def swap(self) -> None:
        """Let searches use the index that was built, in one step."""

    async def release(self) -> None:
        """Let another process build."""

    async def clean_up(self) -> None:
        """Remove what was replaced or given up."""
