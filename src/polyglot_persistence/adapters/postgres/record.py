"""The `Record` port: PostgreSQL as the system of record.

Invariant: only rows that a transaction itself inserted feed rollup and outbox, so a redelivery
counts nothing twice.
Invariant: a batch locks in one order (ids, then rollup cells), so that batches cannot deadlock.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from polyglot_persistence.adapters.postgres.batch import (
    Candidates,
    Unit,
    candidates,
    contradicted,
)
from polyglot_persistence.adapters.postgres.dead_letters import dead_letter_row
from polyglot_persistence.adapters.postgres.locks import SessionLead, lock_key
from polyglot_persistence.adapters.postgres.pool import (
    SERVER_VERSION_MIN,
    PostgresPool,
    Session,
)
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.history import Position
from polyglot_persistence.domain.order import AcceptedOrder, Order
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.leadership import Lead
from polyglot_persistence.ports.orders import Found, Persisted, StoredOrder
from polyglot_persistence.ports.outbox import OutboxBatch
from polyglot_persistence.ports.record import Progress
from polyglot_persistence.ports.state import StoreState, StoreWarning

REASON_CHARACTERS_MAX: Final = 2_000

OUTBOX_ROWS_MAX: Final = 100
"""Rows locked by one claim; those beyond its `orders_max` stay locked until it ends."""


class PostgresRecord:
    """The record over a pool. Cheap to make; several of them may share a pool."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def persist(self, batch: Sequence[AcceptedOrder]) -> Persisted:
        """A conflict costs a rollback and a second round."""
        units = whole_units(batch)
        conflicts: dict[UUID, StoredOrder] = {}
        while True:
            chosen = candidates(units)
            if not chosen.rows:
                return Persisted({}, frozenset(), None, conflicts)
            try:
                async with self._pool.transaction() as session:
                    persisted = await _insert(session, chosen)
            except _LeftOutError as left_out:
                conflicts.update(left_out.conflicts)
                gone = {id(unit) for unit in left_out.units}
                units = [unit for unit in units if id(unit) not in gone]
                continue
            conflicts.update({i: persisted.stored[i] for i in chosen.contradicting})
            return persisted._replace(conflicts=conflicts)

    async def find(self, ids: Sequence[UUID]) -> Found:
        records = await self._pool.read("find", ids)
        return Found(
            {r["id"]: stored(r) for r in records if r["id"] is not None},
            {r["order_id"]: dead_letter_row(r) for r in records if r["dead_id"] is not None},
            "" if records[0]["epoch"] is None else _epoch(records[0]),
        )

    async def page(
        self, before: tuple[datetime, UUID] | None, orders_max: int
    ) -> Sequence[StoredOrder]:
        """The cost does not depend on how far back the page is."""
        async with self._pool.reading() as session:
            if before is None:
                records = await session.fetch("page_first", orders_max)
            else:
                records = await session.fetch("page_before", *before, orders_max)
        return [stored(record) for record in records]

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """A reason is cut to 2,000 characters."""
        rows: dict[tuple[str, str, bytes], DeadLetter] = {}
        for letter in letters:
            digest = hashlib.sha256(letter.payload).digest()
            key = (str(letter.order_id), letter.stage.value, digest)
            same = rows.get(key)
            attempts = letter.attempts + (same.attempts if same else 0)
            rows[key] = letter._replace(attempts=attempts)
        if not rows:
            return
        ordered = sorted(rows.items(), key=lambda item: item[0])
        buried = [letter for _, letter in ordered]
        await self._pool.write(
            "bury",
            [letter.order_id for letter in buried],
            [letter.unit_id for letter in buried],
            [letter.payload for letter in buried],
            [digest for (_, _, digest), _ in ordered],
            [_storable(letter.reason) for letter in buried],
            [letter.stage.value for letter in buried],
            [letter.attempts for letter in buried],
        )

    async def attempted(self, subjects: Sequence[str]) -> frozenset[str]:
        records = await self._pool.write("attempted", subjects)
        return frozenset(record["subject"] for record in records)

    async def begin_attempts(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """It does not wait for the disk, which makes it ten times cheaper."""
        async with self._pool.transaction() as session:
            await session.fetch("commit_lazily")
            records = await session.fetch("begin_attempts", subjects)
        return {record["subject"]: record["attempts"] for record in records}

    async def take_back_attempts(self, subjects: Sequence[str]) -> None:
        await self._pool.write("take_back_attempts", subjects)

    async def end_attempts(self, subjects: Sequence[str]) -> None:
        async with self._pool.transaction() as session:
            await session.fetch("commit_lazily")
            await session.fetch("end_attempts", subjects)

    @asynccontextmanager
    async def claim_outbox(
        self, older_than_seconds: float, orders_max: int
    ) -> AsyncIterator[OutboxBatch]:
        """Claims at least one row, then as many as fit `orders_max`.

        The claim ends with the transaction, at the latest after an idle minute.
        """
        async with self._pool.transaction() as session:
            age = timedelta(seconds=older_than_seconds)
            claimed = await session.fetch("claim_outbox", age, orders_max, OUTBOX_ROWS_MAX)
            outbox_ids = [record["id"] for record in claimed]
            records = await session.fetch("outbox_orders", outbox_ids) if outbox_ids else []
            yield OutboxBatch(
                [stored(record) for record in records if record["id"] is not None],
                [record["wanted_id"] for record in records if record["id"] is None],
                frozenset(record["id"] for record in records if record["new"]),
            )
            if outbox_ids:
                await session.fetch("outbox_done", outbox_ids)

    async def outbox_done(self, outbox_ids: Sequence[int]) -> Sequence[int]:
        """Rows claimed by another process are left to it.

        A crash of the server may restore rows, whose orders are then indexed once more.
        """
        if not outbox_ids:
            return []
        async with self._pool.transaction() as session:
            await session.fetch("commit_lazily")
            return [record["id"] for record in await session.fetch("outbox_done", outbox_ids)]

    async def progress(self, *, dead_letters_max: int) -> Progress:
        records = await self._pool.read("progress", dead_letters_max)
        return Progress(**records[0])

    async def epoch(self) -> str | None:
        async with self._pool.reading() as session:
            record = await session.fetchrow("epoch")
        return None if record is None else _epoch(record)

    async def found_epoch(self) -> tuple[str, bool]:
        epoch = await self.epoch()
        if epoch is not None:
            return epoch, False
        async with self._pool.transaction() as session:
            created = await session.fetchrow("first_epoch")
        if created is not None:
            return _epoch(created), True
        epoch = await self.epoch()
        if epoch is None:
            raise UnavailableError("the cache epoch was removed while it was being read")
        return epoch, False

    async def new_epoch(self) -> str:
        (record,) = await self._pool.write("new_epoch")
        return _epoch(record)

    async def position(self) -> Position:
        """A promotion and a recovery begin a new timeline; a database created anew has a new oid.

        The first databases of two clusters have the same oid, and the clusters different numbers.
        A server that was set back without recovery has written less.
        """
        (record,) = await self._pool.read("position")
        return Position(record["branch"], record["written"])

    @asynccontextmanager
    async def lead(self, role: str) -> AsyncIterator[Lead | None]:
        """Uses a session lock on a connection of its own."""
        async with self._pool.dedicated() as session:
            leads = await session.fetchval("try_lead", lock_key(f"lead {role}"))
            yield SessionLead(session) if leads else None

    async def ping(self) -> StoreState:
        (record,) = await self._pool.read("ping")
        if record["read_only"] == "on":
            raise UnavailableError("PostgreSQL is read-only (a standby?): nothing can be persisted")
        version = f"PostgreSQL {record['version']}"
        if standbys := record["standbys"]:
            manner = "synchronous" if _is_synchronous(record) else "asynchronous"
            version += f", primary of {standbys} {manner} standby{'s' * (standbys > 1)}"
        return StoreState(version, _warnings(record, self._pool.servers))


class _LeftOutError(Exception):
    """Rolls an attempt back: these units contradict the record."""

    def __init__(self, units: Sequence[Unit], conflicts: Mapping[UUID, StoredOrder]) -> None:
        super().__init__("units contradict the record")
        self.units = units
        self.conflicts = conflicts


async def _insert(session: Session, chosen: Candidates) -> Persisted:
    orders = [accepted.order for accepted in chosen.rows.values()]
    records = await session.fetch(
        "persist",
        list(chosen.rows),
        [order.product_name for order in orders],
        # As text: asyncpg takes 1.5 us for a numeric, and the cast of a text is exact too.
        [str(order.amount) for order in orders],
        [order.created_at for order in orders],
        [accepted.accepted_at for accepted in chosen.rows.values()],
    )
    persisted_at, outbox_id, inserted_count, inserted_ids, letter_ids = records[0]
    inserted = frozenset(chosen.rows)
    existing: dict[UUID, StoredOrder] = {}
    if inserted_count < len(orders):
        inserted = frozenset(inserted_ids or ())
        existing = await _existing(session, [i for i in chosen.rows if i not in inserted])
        left_out, conflicts = contradicted(chosen.units, existing)
        if conflicts:
            raise _LeftOutError(left_out, conflicts)
    if letter_ids:
        await _remove_answered(session, letter_ids, chosen)
    stored = {
        order_id: StoredOrder(accepted.order, accepted.accepted_at, persisted_at)
        for order_id, accepted in chosen.rows.items()
    }
    stored.update(existing)
    return Persisted(stored, inserted, outbox_id, {})


async def _remove_answered(session: Session, letter_ids: Sequence[int], chosen: Candidates) -> None:
    """Delete the letters of orders just inserted, except for letters of other orders.

    A letter with other content under the same id is an order that was accepted, too: only an
    operator may discard it. An unreadable letter counts as a damaged copy of the stored order.
    """
    answered = []
    for record in await session.fetch("dead_letters_by_ids", letter_ids):
        if not Stage(record["stage"]).is_known:
            continue
        dead = codec.readable_item(record["payload"])
        if dead is None or dead.agrees_with(chosen.rows[record["order_id"]].order):
            answered.append(record["dead_id"])
    if answered:
        await session.fetch("discard", answered)


async def _existing(session: Session, ids: Sequence[UUID]) -> dict[UUID, StoredOrder]:
    """Return the conflicting rows: they are committed by now, or there would be no conflict."""
    found = {record["id"]: stored(record) for record in await session.fetch("orders_by_ids", ids)}
    if len(found) < len(ids):
        raise UnavailableError("orders were removed from the record while persisting")
    return found


def stored(record: asyncpg.Record) -> StoredOrder:
    """Return the order of a row."""
    order = Order(record["id"], record["product_name"], record["amount"], record["created_at"])
    return StoredOrder(order, record["accepted_at"], record["persisted_at"])


def _epoch(record: asyncpg.Record) -> str:
    """Return the epoch in the form that others compare; on another timeline it differs.

    A promoted standby, and a server recovered to a moment in the past, begin a new timeline. So no
    epoch of the former primary recurs, whichever it issued last.
    """
    return f"{record['timeline']}.{record['epoch']}"


def _storable(reason: str) -> str:
    """Return the reason in a form that TEXT can hold: a payload may have put anything into it."""
    text = reason.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()
    return text[:REASON_CHARACTERS_MAX]


def _is_synchronous(record: asyncpg.Record) -> bool:
    """Return whether a commit of this session waits until a standby has it."""
    return bool(record["synchronous_standby_names"]) and record["synchronous_commit"] != "local"


def _warnings(record: asyncpg.Record, servers: int) -> tuple[StoreWarning, ...]:
    warnings = [
        StoreWarning(
            f"{name} is off: a crash of the server can lose persisted orders", "set it to on"
        )
        for name in ("fsync", "full_page_writes")
        if record[name] == "off"
    ]
    if record["number"] < SERVER_VERSION_MIN * 10_000:
        warnings.append(StoreWarning(f"PostgreSQL {SERVER_VERSION_MIN} or newer is needed"))
    if record["standbys"] and not _is_synchronous(record):
        warnings.append(
            StoreWarning(
                "its standbys are asynchronous: a promoted one may lack the last persisted orders, "
                "of which only those that the cache still holds are persisted again",
                "set synchronous_standby_names, and synchronous_commit to on",
            )
        )
    if servers > 1 and not record["standbys"]:
        warnings.append(
            StoreWarning(
                f"POSTGRES_DSN names {servers} servers, and no standby follows the primary",
                "start a standby, or give the former primary back as one",
            )
        )
    return tuple(warnings)
