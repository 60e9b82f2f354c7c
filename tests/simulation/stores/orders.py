"""The order store port over a simulated PostgreSQL."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from polyglot_persistence.adapters.postgres.batch import Candidates, candidates, contradicted
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, DeadLetterRow, Stage
from polyglot_persistence.domain.history import Position
from polyglot_persistence.domain.order import AMOUNT_MAX, AcceptedOrder, to_micros
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import PoisonError, UnavailableError
from polyglot_persistence.ports.leadership import Lead
from polyglot_persistence.ports.orders import Found, Persisted, StoredOrder
from polyglot_persistence.ports.outbox import OutboxBatch
from polyglot_persistence.ports.record import Progress
from polyglot_persistence.ports.state import StoreState
from tests.simulation.stores.record import (
    IDLE_SECONDS_MAX,
    ONLY,
    OutboxRow,
    RecordServer,
    Session,
    Suspect,
    add,
)

OUTBOX_ROWS_MAX = 100
REASON_CHARACTERS_MAX = 2_000
_NAME_CHARACTERS_MAX = 200
_INFINITE = (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))
"""What the driver sends as PostgreSQL's infinities."""


class SimulatedOrders:
    """`ports.Record` of one process."""

    def __init__(self, record: RecordServer) -> None:
        self._record = record
        self._sessions: list[Session] = []

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        """Insert what is new; leave out the units that the record contradicts."""
        record = self._record
        units = whole_units(batch)
        conflicts: dict[UUID, StoredOrder] = {}
        while True:
            chosen = candidates(units)
            if not chosen.rows:
                return Persisted({}, frozenset(), None, conflicts)
            with record.transaction() as now:
                _check_storable(chosen.rows.values())
                existing = {i: record.orders[i] for i in chosen.rows if i in record.orders}
                left_out, met = contradicted(chosen.units, existing)
                persisted = None if met else self._insert(chosen, existing, now)
            if persisted is not None:
                conflicts.update({i: persisted.stored[i] for i in chosen.contradicting})
                return persisted._replace(conflicts=conflicts)
            conflicts.update(met)
            gone = {id(unit) for unit in left_out}
            units = [unit for unit in units if id(unit) not in gone]

    async def find(self, ids: Sequence[UUID]) -> Found:
        """Return rows, the latest letters of what has no row, and the epoch."""
        record = self._record
        record.reading()
        dead: dict[UUID, DeadLetterRow] = {}
        wanted = {i for i in ids if i not in record.orders}
        for row in sorted(record.letters.values(), key=lambda row: (row.last_at, row.id)):
            order_id = row.letter.order_id
            if order_id is not None and order_id in wanted and row.letter.stage is not Stage.INDEX:
                dead[order_id] = row
        return Found(
            {i: record.orders[i] for i in ids if i in record.orders}, dead, self._epoch() or ""
        )

    async def page(
        self, before: tuple[datetime, UUID] | None, orders_max: int
    ) -> Sequence[StoredOrder]:
        """Return the newest orders before a position."""
        self._record.reading()
        rows = sorted(self._record.orders.values(), key=_place, reverse=True)
        return [row for row in rows if before is None or _place(row) < before][:orders_max]

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters, or count up those that are there."""
        record = self._record
        if not letters:
            return
        with record.transaction() as now:
            known = {_letter_key(row.letter): row for row in record.letters.values()}
            for letter in letters:
                reason = _storable(letter.reason)
                row = known.get(_letter_key(letter))
                attempts = letter.attempts + (row.letter.attempts if row else 0)
                if row is None:
                    row = DeadLetterRow(record.new_id(), letter, now, now)
                kept = row.letter._replace(attempts=attempts, reason=reason)
                row = row._replace(letter=kept, last_at=now)
                known[_letter_key(letter)] = row
                record.letters.put(row.id, row)

    async def attempted(self, subjects: Sequence[str]) -> frozenset[str]:
        """Return those with an attempt."""
        self._record.reading()
        suspects = self._record.suspects
        return frozenset(s for s in subjects if s in suspects and suspects[s].attempts > 0)

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """Count up."""
        suspects = self._record.suspects
        with self._record.transaction() as now:
            for subject in subjects:
                before = suspects[subject].attempts if subject in suspects else 0
                suspects.put(subject, Suspect(before + 1, now))
        return {subject: suspects[subject].attempts for subject in subjects}

    async def take_back_attempts(self, subjects: Sequence[str]) -> None:
        """Count down."""
        suspects = self._record.suspects
        with self._record.transaction():
            for subject in subjects:
                if subject in suspects:
                    attempts, last_at = suspects[subject]
                    suspects.put(subject, Suspect(max(attempts - 1, 0), last_at))

    async def end_attempts(self, subjects: Sequence[str]) -> None:
        """Forget."""
        suspects = self._record.suspects
        with self._record.transaction() as now:
            for subject, (_, last_at) in list(suspects.items()):
                if subject in subjects or last_at < now - timedelta(days=1):
                    suspects.remove(subject)

    @asynccontextmanager
    async def claim_outbox(
        self, older_than_seconds: float, orders_max: int
    ) -> AsyncIterator[OutboxBatch]:
        """Lock the oldest free rows; of these, take as many as fit."""
        record = self._record
        with self._session(idle_seconds_max=IDLE_SECONDS_MAX) as session:
            bound = record.clock.now() - timedelta(seconds=older_than_seconds)
            free = [
                row_id
                for row_id in sorted(record.outbox)
                if record.outbox[row_id].created_at <= bound and not record.locked("outbox", row_id)
            ][:OUTBOX_ROWS_MAX]
            if record.is_read_only:
                raise UnavailableError("PostgreSQL is read-only")
            record.row_locks |= {("outbox", row_id): session for row_id in free}
            claimed = fitting({i: len(record.outbox[i].order_ids) for i in free}, orders_max)
            yield outbox_batch(record, claimed)
            session.check()
            if claimed:
                with record.transaction():
                    _delete_outbox(record, claimed)

    async def outbox_done(self, outbox_ids: Sequence[int]) -> Sequence[int]:
        """Delete those that nobody has claimed."""
        record = self._record
        if not outbox_ids:
            return []
        free = [i for i in outbox_ids if i in record.outbox and not record.locked("outbox", i)]
        with record.transaction():
            _delete_outbox(record, free)
        return free

    async def progress(self, *, dead_letters_max: int) -> Progress:
        """Count."""
        record = self._record
        record.reading()
        rows = record.outbox.values()
        return Progress(
            len(record.orders),
            sum(len(row.order_ids) for row in rows),
            min((row.created_at for row in rows), default=None),
            min(len(record.letters), dead_letters_max),
            max(record.letters, default=None),
            record.refreshed.get(ONLY),
        )

    async def epoch(self) -> str | None:
        """Return the epoch on this timeline."""
        self._record.reading()
        return self._epoch()

    async def found_epoch(self) -> tuple[str, bool]:
        """Return the epoch, created if there was none."""
        self._record.reading()
        epoch = self._epoch()
        if epoch is not None:
            return epoch, False
        with self._record.transaction() as now:
            self._record.epochs.put(ONLY, to_micros(now))
        return self._epoch() or "", True

    async def new_epoch(self) -> str:
        """Raise the epoch."""
        with self._record.transaction() as now:
            before = self._record.epochs.get(ONLY, 0)
            self._record.epochs.put(ONLY, max(before + 1, to_micros(now)))
        return self._epoch() or ""

    async def position(self) -> Position:
        """Return the timeline, and how many effects there are."""
        self._record.reading()
        return Position(str(self._record.timeline), len(self._record.journal.effects))

    @asynccontextmanager
    async def lead(self, role: str) -> AsyncIterator[Lead | None]:
        """Take an advisory lock for as long as the session lives."""
        with self._session() as session:
            leads = self._record.try_lock(f"lead {role}", session)
            yield SimulatedLead(self._record, session) if leads else None

    async def ping(self) -> StoreState:
        """See that something can be persisted."""
        self._record.reading()
        if self._record.is_read_only:
            raise UnavailableError("PostgreSQL is read-only (a standby?): nothing can be persisted")
        return StoreState("PostgreSQL simulated")

    def kill(self) -> None:
        """Let the process die: its sessions end, and nothing of them is committed."""
        for session in self._sessions:
            self._record.cut(session)
        self._sessions = []

    @contextmanager
    def _session(self, *, idle_seconds_max: float | None = None) -> Iterator[Session]:
        with self._record.session(idle_seconds_max=idle_seconds_max) as session:
            self._sessions.append(session)
            try:
                yield session
            finally:
                if session in self._sessions:
                    self._sessions.remove(session)

    def _epoch(self) -> str | None:
        number = self._record.epochs.get(ONLY)
        return None if number is None else f"{self._record.timeline}.{number}"

    def _insert(
        self, chosen: Candidates, existing: Mapping[UUID, StoredOrder], now: datetime
    ) -> Persisted:
        record = self._record
        stored = {
            i: existing.get(i) or StoredOrder(one.order, one.accepted_at, now)
            for i, one in chosen.rows.items()
        }
        inserted = [i for i in chosen.rows if i not in existing]
        for order_id in inserted:
            row = stored[order_id]
            record.orders.put(order_id, row)
            bucket, day = quarter_hour(row.order.created_at), utc_day(row.order.created_at)
            cell = day, row.order.product_name
            record.quarter_hours.put(
                bucket, add(record.quarter_hours.get(bucket), row.order.amount)
            )
            record.product_days.put(cell, add(record.product_days.get(cell), row.order.amount))
        outbox_id = None
        if inserted:
            outbox_id = record.new_id()
            record.outbox.put(outbox_id, OutboxRow(now, tuple(inserted)))
            self._remove_answered(chosen.rows, frozenset(inserted))
        return Persisted(stored, frozenset(inserted), outbox_id, {})

    def _remove_answered(
        self, rows: Mapping[UUID, AcceptedOrder], inserted: frozenset[UUID]
    ) -> None:
        """Delete the letters of what was inserted, but for those of other orders under its id."""
        for row in list(self._record.letters.values()):
            order_id = row.letter.order_id
            if order_id not in inserted or order_id is None:
                continue
            try:
                dead = codec.decode_item(row.letter.payload)
            except PoisonError:
                self._record.letters.remove(row.id)
                continue
            if dead.order.same_content(
                rows[order_id].order, created_at_given=dead.created_at_given
            ):
                self._record.letters.remove(row.id)


class SimulatedLead:
    """`ports.Lead`."""

    def __init__(self, record: RecordServer, session: Session) -> None:
        self._record = record
        self._session = session

    async def confirm(self) -> None:
        """See that the session lives."""
        self._record.reading()
        self._session.check()


def fitting(orders: Mapping[int, int], orders_max: int) -> list[int]:
    """Return the first rows with up to so many orders in all, and one at least."""
    fitting, so_far = [], 0
    for row_id, count in orders.items():
        so_far += count
        if so_far > orders_max and so_far != count:
            break
        fitting.append(row_id)
    return fitting


def outbox_batch(record: RecordServer, row_ids: Sequence[int]) -> OutboxBatch:
    """Return what outbox rows name, each once."""
    since: dict[UUID, datetime] = {}
    for row_id in row_ids:
        row = record.outbox[row_id]
        for order_id in row.order_ids:
            since[order_id] = min(row.created_at, since.get(order_id, row.created_at))
    orders = [record.orders[i] for i in since if i in record.orders]
    return OutboxBatch(
        orders,
        [i for i in since if i not in record.orders],
        frozenset(row.order.id for row in orders if since[row.order.id] == row.persisted_at),
    )


def quarter_hour(moment: datetime) -> datetime:
    """Return where the quarter hour of a moment begins."""
    return moment - (moment - datetime(1970, 1, 1, tzinfo=UTC)) % timedelta(minutes=15)


def utc_day(moment: datetime) -> date:
    """Return the UTC day of a moment."""
    return moment.astimezone(UTC).date()


def _delete_outbox(record: RecordServer, row_ids: Sequence[int]) -> None:
    """Delete rows; a rebuild keeps them as arrivals."""
    for row_id in row_ids:
        row = record.outbox[row_id]
        record.outbox.remove(row_id)
        if record.rebuilds:
            record.arrivals.put(record.new_id(), row.order_ids)


def _check_storable(batch: Iterable[AcceptedOrder]) -> None:
    """Raise if PostgreSQL can never hold one of the orders."""
    for one in batch:
        name, amount = one.order.product_name, one.order.amount
        if not 1 <= len(name) <= _NAME_CHARACTERS_MAX or "\x00" in name or not _is_utf8(name):
            raise PoisonError("PostgreSQL can never hold this value")
        if not amount.is_finite() or not Decimal(0) <= amount <= AMOUNT_MAX:
            raise PoisonError("the data breaks a rule of the schema")
        if one.order.created_at in _INFINITE or one.accepted_at in _INFINITE:
            raise PoisonError("the data breaks a rule of the schema")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _place(row: StoredOrder) -> tuple[datetime, UUID]:
    return row.order.created_at, row.order.id


def _letter_key(letter: DeadLetter) -> tuple[UUID | None, Stage, bytes]:
    return letter.order_id, letter.stage, hashlib.sha256(letter.payload).digest()


def _storable(reason: str) -> str:
    text = reason.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()
    return text[:REASON_CHARACTERS_MAX]
