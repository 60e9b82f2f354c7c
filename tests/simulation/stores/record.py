"""A simulated PostgreSQL: its tables, sessions and locks, and what can happen to it.

A transaction is one effect, so a tail of commits can be lost. Sequences go on over such a loss, and
so does the epoch, for its text names the timeline.
"""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.domain.dead_letter import DeadLetterRow
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.audit import Freshness
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.rebuild import Rebuild
from polyglot_persistence.ports.sales import Sales
from tests.simulation.stores.journal import Journal, Table

IDLE_SECONDS_MAX = 60.0
"""`idle_in_transaction_session_timeout` as the pool sets it."""

ONLY = "only"
"""The key of a table's only row."""


class OutboxRow(NamedTuple):
    """Orders of which it is not known that they are searchable."""

    created_at: datetime
    order_ids: tuple[UUID, ...]


class Suspect(NamedTuple):
    """Attempts that were not survived."""

    attempts: int
    last_at: datetime


class Progressed(NamedTuple):
    """How far a rebuild of the sales has come."""

    done_until: date
    changed_at: datetime


class Session:
    """A connection that keeps locks beyond one statement."""

    def __init__(self, record: "RecordServer", *, idle_seconds_max: float | None) -> None:
        self._record = record
        self._heard_at = record.clock.monotonic()
        self._idle_seconds_max = idle_seconds_max
        self.is_cut = False

    @property
    def is_alive(self) -> bool:
        """Whether the server still keeps its locks."""
        idle_seconds = self._record.clock.monotonic() - self._heard_at
        return not self.is_cut and (
            self._idle_seconds_max is None or idle_seconds < self._idle_seconds_max
        )

    def check(self) -> None:
        """Say a word to the server.

        Raises:
            UnavailableError: the connection is gone, and its locks with it.
        """
        if not self.is_alive:
            raise UnavailableError("the connection to PostgreSQL was lost")
        self._heard_at = self._record.clock.monotonic()


class RecordServer:
    """The server with its data. It is up, migrated, and empty at first."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_up = True
        self.is_read_only = False
        """`default_transaction_read_only`, a full disk: it answers reads and refuses writes."""
        self.timeline = 1
        self.sessions: list[Session] = []
        self.row_locks: dict[tuple[str, int], Session] = {}
        self.advisory_locks: dict[str, Session] = {}
        self.journal = Journal()
        tables = self.journal
        self.orders: Table[UUID, StoredOrder] = Table(tables)
        self.quarter_hours: Table[datetime, Sales] = Table(tables)
        self.product_days: Table[tuple[date, str], Sales] = Table(tables)
        self.outbox: Table[int, OutboxRow] = Table(tables)
        self.letters: Table[int, DeadLetterRow] = Table(tables)
        self.suspects: Table[str, Suspect] = Table(tables)
        self.epochs: Table[str, int] = Table(tables)
        self.rebuilds: Table[str, Rebuild] = Table(tables)
        self.arrivals: Table[int, tuple[UUID, ...]] = Table(tables)
        self.view: Table[date, Sales] = Table(tables)
        self.refreshed: Table[str, datetime] = Table(tables)
        self.sales_rebuilds: Table[str, Progressed] = Table(tables)
        self.hours: Table[datetime, Freshness] = Table(tables)
        self._ids = itertools.count(1)
        self._waiting: dict[str, list[asyncio.Event]] = {}

    # --- what its clients do -----------------------------------------------------------------

    def reading(self) -> datetime:
        """Return the moment of a statement that only reads."""
        if not self.is_up:
            raise UnavailableError("PostgreSQL is away")
        return self.clock.now()

    @contextmanager
    def transaction(self) -> Iterator[datetime]:
        """Commit everything inside as one effect; give its `transaction_timestamp`."""
        now = self.reading()
        if self.is_read_only:
            raise UnavailableError("PostgreSQL is read-only")
        with self.journal.effect():
            yield now

    def new_id(self) -> int:
        """Return the next number of a sequence."""
        return next(self._ids)

    @contextmanager
    def session(self, *, idle_seconds_max: float | None = None) -> Iterator[Session]:
        """Open a connection; its locks end with it."""
        self.reading()
        session = Session(self, idle_seconds_max=idle_seconds_max)
        self.sessions.append(session)
        try:
            yield session
        finally:
            self.cut(session)

    def locked(self, table: str, row: int) -> bool:
        """Whether a session that lives has locked a row."""
        session = self.row_locks.get((table, row))
        return session is not None and session.is_alive

    def try_lock(self, name: str, session: Session) -> bool:
        """Take an advisory lock if nobody has it."""
        holder = self.advisory_locks.get(name)
        if holder is not None and holder.is_alive:
            return False
        self.advisory_locks[name] = session
        return True

    async def lock(self, name: str, session: Session, *, seconds_max: float) -> None:
        """Wait for an advisory lock; first come, first served.

        Raises:
            UnavailableError: it took too long, or the session was cut.
        """
        freed = asyncio.Event()
        waiting = self._waiting.setdefault(name, [])
        waiting.append(freed)
        try:
            async with asyncio.timeout(seconds_max):
                while waiting[0] is not freed or not self.try_lock(name, session):
                    freed.clear()
                    await freed.wait()
                    session.check()
        except TimeoutError as error:
            raise UnavailableError("PostgreSQL could not get a lock in time") from error
        finally:
            waiting.remove(freed)
            self._wake()

    # --- what happens to it ------------------------------------------------------------------

    def cut(self, session: Session) -> None:
        """End a connection, as `pg_terminate_backend` does."""
        session.is_cut = True
        if session in self.sessions:
            self.sessions.remove(session)
        self.row_locks = {row: one for row, one in self.row_locks.items() if one is not session}
        self.advisory_locks = {
            name: one for name, one in self.advisory_locks.items() if one is not session
        }
        self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting.values():
            for freed in waiting:
                freed.set()

    def cut_sessions(self) -> None:
        """End all of them."""
        for session in list(self.sessions):
            self.cut(session)

    def stop(self) -> None:
        """Take it away."""
        self.is_up = False
        self.cut_sessions()

    def start(self) -> None:
        """Give it back with everything that was committed."""
        self.is_up = True

    def fail_over(self, *, lost_effects: int) -> None:
        """Let a standby that lags by so many commits take its place, on a new timeline.

        A backup that is restored to a moment is the same.
        """
        self.cut_sessions()
        self.journal.roll_back(lost_effects)
        self.timeline += 1
        self.is_up = True


def add(sales: Sales | None, amount: Decimal, orders: int = 1) -> Sales:
    """Return a cell with more in it."""
    before = sales or Sales(Decimal("0.00"), 0)
    return Sales(before.revenue + amount, before.orders + orders)
