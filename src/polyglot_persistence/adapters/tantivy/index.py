"""The search port over tantivy: one writer among all processes, any number of readers.

Invariant: the writer takes all of a call or nothing: after any failure it is dropped with its
uncommitted changes, and the next call opens a new one.
Invariant: nothing here creates an index; only a rebuild does (`directory.begin`).
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import UUID

import tantivy

from polyglot_persistence.adapters.tantivy.directory import (
    IndexDirectory,
    MissingIndexError,
    OpenIndex,
    Role,
    damage_is_absence,
)
from polyglot_persistence.adapters.tantivy.documents import document, source
from polyglot_persistence.adapters.tantivy.facets import facets_of, most_ordered
from polyglot_persistence.adapters.tantivy.lane import Lane
from polyglot_persistence.adapters.tantivy.query import OrderQuery
from polyglot_persistence.domain.order import from_micros
from polyglot_persistence.domain.search.query import (
    COUNTED_ORDERS_MAX,
    Facets,
    NameOrders,
    SearchQuery,
    position,
)
from polyglot_persistence.domain.search.terms import QueryWord
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import Hit, IndexFailure, SearchResult
from polyglot_persistence.ports.state import StoreState
from polyglot_persistence.telemetry import logger

T = TypeVar("T")

_log = logger("search")

WRITER_HEAP_BYTES = 16_000_000
"""tantivy requires 15 MB per thread. 64 MB are no faster, since every call commits. The process
peaks at 120 MB while it indexes and merges 1.5 million orders, most of it in merges."""

RELOAD_SECONDS = 0.2
"""Maximum age of a reader's view. Checking costs 0.2 ms, or some ms after a commit."""

READERS = 2
"""Concurrent searches in a process; tantivy releases the interpreter lock while it searches."""

READS_WAITING_MAX = 256
WRITES_WAITING_MAX = 8


class _Reading(NamedTuple):
    """The view that searches share until it is a moment old."""

    opened: OpenIndex
    searcher: tantivy.Searcher
    stale_at: float


class _Writing:
    """The writer, and the name of the index that it writes to.

    Invariant: nothing else refers to the writer, since the last reference releases its lock. An
    exception keeps the frames of its calls with their arguments, often in a cycle, until a garbage
    collection.
    """

    def __init__(self, opened: OpenIndex) -> None:
        self.name = opened.name
        self._writer = opened.handle.writer(WRITER_HEAP_BYTES, num_threads=1)

    def put(self, order_id: UUID, new: tantivy.Document | None = None) -> None:
        """Remove the order's document, and add the new one."""
        self._writer.delete_documents_by_term("id", str(order_id))
        if new is not None:
            self._writer.add_document(new)

    def commit(self) -> None:
        """Return once everything is on disk."""
        self._writer.commit()

    def end(self) -> None:
        """Stop its threads, release the lock and drop uncommitted changes."""
        del self._writer


class TantivyIndex:
    """The search index in a directory. Takes no lock and no thread before the first `index`."""

    def __init__(
        self,
        directory: Path,
        *,
        role: Role = "current",
        search_timeout_seconds: float,
        index_timeout_seconds: float,
    ) -> None:
        self.directory = IndexDirectory(directory, role)
        self.index_timeout_seconds = index_timeout_seconds
        self._readers = Lane(
            "read",
            threads=READERS,
            jobs_max=READS_WAITING_MAX,
            timeout_seconds=search_timeout_seconds,
        )
        self._writer = Lane(
            "write", threads=1, jobs_max=WRITES_WAITING_MAX, timeout_seconds=index_timeout_seconds
        )
        self._reading: _Reading | None = None
        self._reading_lock = threading.Lock()
        self._writing: _Writing | None = None

    async def index(self, orders: Sequence[StoredOrder]) -> Sequence[IndexFailure]:
        """Add or replace the documents in one commit, fsynced (15 ms and 40 us a document).

        Raises:
            UnavailableError: also while another process writes. That process also indexes the
                orders that this one leaves in the outbox.
        """
        if not orders:
            return []
        return await self._writer.run(lambda: self._write(orders))

    async def search(self, query: SearchQuery) -> SearchResult:
        """Return a page of the matches; no hits for an empty tuple of words."""

        def job() -> SearchResult:
            searcher, schema = self._view()
            if query.words == ():
                return SearchResult(0, [], facets=Facets([], [], []) if query.facets else None)
            asked = OrderQuery(schema, query)
            hits = [
                Hit(source(searcher.doc(address)).order(), int(rank))
                for address, rank in asked.page(searcher)
            ]
            hits.sort(key=lambda hit: position(hit.order, hit.rank, query.sort), reverse=True)
            facets = facets_of(searcher, asked.everything) if query.facets else None
            total = asked.count(searcher)
            counted_max = total if asked.is_counted_all else COUNTED_ORDERS_MAX
            return SearchResult(min(total, counted_max), hits, facets, total <= counted_max)

        return await self._readers.run(job)

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return matching names, the most ordered first, ties by name."""

        def job() -> Sequence[NameOrders]:
            searcher, schema = self._view()
            asked = OrderQuery(schema, SearchQuery(tuple(words), names_max))
            return most_ordered(searcher, asked.everything, names_max)

        return await self._readers.run(job) if words else []

    async def indexed_at(self, order_id: UUID) -> datetime | None:

        def job() -> datetime | None:
            searcher, schema = self._view()
            by_id = tantivy.Query.term_query(schema, "id", str(order_id), index_option="basic")
            for _, address in searcher.search(by_id, limit=1, count=False).hits:
                return from_micros(source(searcher.doc(address)).indexed_micros)
            return None

        return await self._readers.run(job)

    async def name(self) -> str | None:
        """Return the name of the index; None if it is missing or unusable, judged by opening it.

        Raises:
            UnavailableError: it cannot be determined now.
        """

        def job() -> str | None:
            try:
                self._view(at_once=True)
                # An older index is searched until a new one replaces it.
                return self.directory.current()
            except MissingIndexError as error:
                _log.debug("index_missing", error=str(error))
                return None

        return await self._readers.run(job)

    async def show(self) -> None:
        """Refresh, so that the next look sees everything indexed so far."""
        await self._readers.run(lambda: self._view(at_once=True))

    async def manage(self, job: Callable[[], T]) -> T:
        """Run a job that changes the directory, between two writes."""
        return await self._writer.run(job)

    async def release(self) -> None:
        """Release the writer, so that another handle can have it."""
        await self._writer.run(self._stop_writing)

    async def read(self, job: Callable[[tantivy.Searcher, tantivy.Schema], T]) -> T:
        """Return the result of a job on the index, within the deadline of an index batch."""

        def view() -> T:
            searcher, schema = self._view()
            return job(searcher, schema)

        return await self._readers.run(view, timeout_seconds=self.index_timeout_seconds)

    async def remove(self, ids: Sequence[UUID]) -> None:
        """Remove documents in one commit, fsynced."""

        def remove(writing: _Writing) -> None:
            for order_id in ids:
                writing.put(order_id)

        if ids:
            await self._writer.run(lambda: self._commit(remove))

    async def ping(self) -> StoreState:
        """Return the engine's version.

        Raises:
            UnavailableError: the index is missing, damaged or cannot be read.
        """
        await self._readers.run(lambda: self._view(at_once=True))
        return StoreState(f"tantivy {version('tantivy')}")

    async def close(self) -> None:
        """Release the writer, so that another process can have it, and the threads.

        Idempotent. Running merges are abandoned; committed changes are on disk.
        """
        try:
            await self._writer.run(self._stop_writing)
        except UnavailableError:  # already closed, or a commit hangs: its thread has the writer
            pass
        finally:
            self._writer.close()
            self._readers.close()

    def _view(self, *, at_once: bool = False) -> tuple[tantivy.Searcher, tantivy.Schema]:
        """Return a view of the index that is at most `RELOAD_SECONDS` old, or new."""
        with self._reading_lock:
            reading = self._reading
            now = time.monotonic()
            if reading is None or at_once or now >= reading.stale_at:
                self._reading = None
                opened = self._reopened(reading)
                reading = _Reading(opened, opened.handle.searcher(), now + RELOAD_SECONDS)
                self._reading = reading
            return reading.searcher, reading.opened.handle.schema

    def _reopened(self, reading: _Reading | None) -> OpenIndex:
        if reading is not None and reading.opened.name == self.directory.current(to_read=True):
            try:
                with damage_is_absence():
                    reading.opened.handle.reload()
            except MissingIndexError:
                pass  # opening shows whether it is gone or was just replaced
            else:
                return reading.opened
        opened = self.directory.open(to_read=True)
        opened.handle.config_reader("manual")  # else a thread reloads at its own times
        return opened

    def _write(self, orders: Sequence[StoredOrder]) -> Sequence[IndexFailure]:
        failures = []
        indexed_at = datetime.now(UTC)

        def replace(writing: _Writing) -> None:
            for order, *_ in orders:
                try:
                    new = document(order, indexed_at)
                except ValueError as error:
                    failures.append(IndexFailure(order.id, str(error)))
                else:
                    writing.put(order.id, new)

        self._commit(replace)
        return failures

    def _commit(self, change: Callable[[_Writing], None]) -> None:
        try:
            with self._right_to_write():
                writing = self._open_writer()
                change(writing)
                writing.commit()
        except BaseException:
            self._stop_writing()
            raise

    def _right_to_write(self) -> AbstractContextManager[None]:
        if self.directory.role != "current":
            return nullcontext()
        return self.directory.writing(self.index_timeout_seconds)

    def _open_writer(self) -> _Writing:
        name = self.directory.current()
        if self._writing is None or self._writing.name != name:
            self._stop_writing()
            try:
                self._writing = _Writing(self.directory.open())
            except ValueError as error:
                if "LockBusy" in str(error):
                    raise UnavailableError("search index: another process writes") from error
                raise
        return self._writing

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.end()
        self._writing = None
