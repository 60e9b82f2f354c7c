"""Healing over the real stores: what a record lost is persisted again, from whatever point on."""

from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.redis.contents import RedisContents
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.history import Position
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.watch import audit_cache
from polyglot_persistence.flows.watch.audit_cache import CacheAudit
from polyglot_persistence.flows.watch.heal import HealFlow
from polyglot_persistence.ports.audit import CachePart
from polyglot_persistence.ports.cache import Settled
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.telemetry import RECORD_CHANGES
from tests.support.addresses import BUNDLED
from tests.support.audit import AuditStand, new_orders
from tests.support.cache import make_warm, new_client
from tests.support.eventually import eventually
from tests.support.orders import accepted, single
from tests.support.record import Onlooker
from tests.support.search_indexes import SearchEngine, made

pytestmark = BUNDLED

AGAIN_SECONDS = 30.0
OTHER = Position("another branch", 0)

TABLES = (
    "orders",
    "sales_quarter_hours",
    "sales_product_days",
    "persisted_orders",
    "dead_letters",
    "cache_epoch",
)


class Monotonic:
    """A clock that is moved by hand."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


class Contents(RedisContents):
    """Contents that count their scans, and may be away from one on."""

    scans = 0
    away_from: int | None = None
    is_full = False

    async def scan(self, cursor: int, entries_max: int) -> CachePart:
        self.scans += 1
        if self.away_from is not None and self.scans >= self.away_from:
            raise UnavailableError("the cache is away")
        return await super().scan(cursor, entries_max)

    async def keep_compared_to(self, position: Position) -> None:
        if self.is_full:
            raise UnavailableError("OOM command not allowed")
        await super().keep_compared_to(position)


class Ward(AuditStand):
    """All stores, of which the record forgets and is healed."""

    def begin(self) -> None:
        self.clock = Monotonic()
        self.start_process()

    def start_process(self) -> None:
        """Heal from now on as a process does that has just started."""
        self.entries = Contents(self.client)
        self.healer = HealFlow(
            self.store,
            self.entries,
            CacheAudit(self.cache, self.entries, self.store, self.persist),
            cast("Clock", self.clock),
            again_after_seconds=AGAIN_SECONDS,
        )

    async def look(self) -> None:
        async def pace(_entries: int) -> bool:
            return True

        await self.healer.look(pace)

    async def look_again(self) -> None:
        """Look when the second comparison is due."""
        self.clock.seconds += AGAIN_SECONDS
        await self.look()

    async def is_whole(self) -> bool:
        """Whether the record's present position counts as compared."""
        compared = await self.entries.compared_to()
        position = await self.store.position()
        return compared is not None and position.follows(compared)

    async def missing(self, orders: Sequence[AcceptedOrder]) -> int:
        ids = [one.order.id for one in orders]
        return len(ids) - len((await self.store.find(ids)).orders)


@pytest_asyncio.fixture
async def ward(pool: PostgresPool, redis_url: str, engine: SearchEngine) -> AsyncIterator[Ward]:
    """Empty stores with a warm cache that was compared."""
    client = new_client(redis_url)
    ward = Ward(pool, client, await made(engine), engine.contents())
    ward.begin()
    await make_warm(ward.store, ward.cache)
    await ward.look()
    yield ward
    await client.close()


class Backup:
    """The record's tables as they were, as a standby or a backup has them."""

    def __init__(self, seen: Onlooker) -> None:
        self._seen = seen

    async def take(self) -> None:
        for table in TABLES:
            await self._seen.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}")

    async def restore(self) -> None:
        await self._seen.execute(f"TRUNCATE {', '.join(TABLES)}, index_outbox")
        for table in TABLES:
            await self._seen.execute(
                f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept_{table}"
            )


@pytest_asyncio.fixture
async def backup(seen: Onlooker, ward: Ward) -> Backup:
    """A backup of a record with a few orders."""
    await ward.place(new_orders(20))
    backup = Backup(seen)
    await backup.take()
    return backup


@pytest.mark.parametrize("how", ["promoted", "set back", "created anew"])
async def test_lost_orders_are_back_at_the_first_look(
    ward: Ward, backup: Backup, seen: Onlooker, how: str
) -> None:
    """In the record, the rollups, search and the cache; the epoch is raised before."""
    lost = new_orders(250)
    await ward.place(lost)
    await backup.restore()
    assert await ward.missing(lost) == 250
    now = await ward.store.position()
    before = {
        "promoted": Position(f"{now.branch[:-1]}0", now.written),
        "set back": Position(now.branch, now.written + 1_000_000),
        "created anew": Position(f"1{now.branch}", 0),
    }[how]
    await ward.entries.keep_compared_to(before)
    epoch = await ward.store.epoch()
    healed = RECORD_CHANGES._value.get()
    await ward.look()
    assert await ward.missing(lost) == 0
    assert await ward.store.epoch() != epoch
    await seen.assert_rollup_exact()
    assert not await ward.is_whole()
    await ward.look_again()
    assert await ward.is_whole()
    assert RECORD_CHANGES._value.get() == healed + 1

    async def all_agree() -> None:
        await ward.indexing.work_off_outbox(0.0, 5_000)
        report = await ward.audit()
        assert (report.orders, report.tally.found.total()) == (270, 0)
        assert report.is_clean

    await eventually(all_agree)


async def test_a_database_of_another_cluster_is_another_one(ward: Ward, seen: Onlooker) -> None:
    """Its oid is often the same: a cluster's first one is always 16384."""
    cluster = await seen.value("SELECT system_identifier FROM pg_control_system()")
    position = await ward.store.position()
    assert str(cluster) in position.branch
    other = position.branch.replace(str(cluster), str(cluster + 1))
    assert not position.follows(Position(other, 0))


async def test_a_promotion_that_lost_nothing_changes_nothing(ward: Ward) -> None:
    """As of a synchronous standby."""
    await ward.place(placed := new_orders(40))
    await ward.entries.keep_compared_to(OTHER)
    await ward.look()
    await ward.look_again()
    assert await ward.is_whole()
    assert await ward.missing(placed) == 0
    assert (await ward.store.progress(dead_letters_max=1)).outbox_orders == 0


async def test_a_record_that_goes_on_is_not_compared(ward: Ward) -> None:
    """Each look costs two reads, and a write if anything was written."""
    for orders in (5, 0, 10):
        await ward.place(new_orders(orders))
        scans = ward.entries.scans
        await ward.look()
        assert ward.entries.scans == scans
        assert await ward.is_whole()


async def test_a_cache_of_which_nothing_is_known_is_compared_once(
    ward: Ward, backup: Backup
) -> None:
    """The first start of this version, or a cache that was replaced: it is cold anyway."""
    await ward.place(lost := new_orders(30))
    await backup.restore()
    await ward.client.execute("DEL", "polyglot:compared")
    ward.start_process()
    await ward.look()
    assert await ward.is_whole()
    assert await ward.missing(lost) == 0


@pytest.mark.parametrize("end", ["stopped", "cache away", "record away"])
async def test_a_comparison_that_was_cut_short_begins_anew(
    ward: Ward, backup: Backup, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """By another process; nothing counts as compared before."""
    monkeypatch.setattr(audit_cache, "SCAN_ENTRIES", 20)
    await ward.place(lost := new_orders(200))
    await backup.restore()
    await ward.entries.keep_compared_to(OTHER)
    entries_left = 60

    async def pace(entries: int) -> bool:
        nonlocal entries_left
        entries_left -= entries
        if end == "record away" and entries_left <= 0:
            raise UnavailableError("the record is away")
        return end != "stopped" or entries_left > 0

    if end == "cache away":
        ward.entries.away_from = ward.entries.scans + 4
    if end == "stopped":
        await ward.healer.look(pace)
    else:
        with pytest.raises(UnavailableError):
            await ward.healer.look(pace)
    assert 0 < await ward.missing(lost) < 200
    assert not await ward.is_whole()
    ward.start_process()
    await ward.look()
    assert await ward.missing(lost) == 0
    await ward.look_again()
    assert await ward.is_whole()


async def test_what_is_settled_after_the_first_comparison_is_found_by_the_second(
    ward: Ward, backup: Backup
) -> None:
    """A process persisted it on the former primary, and was late."""
    await ward.entries.keep_compared_to(OTHER)
    await ward.look()
    await ward.place(late := new_orders(15))
    await backup.restore()
    ward.clock.seconds += AGAIN_SECONDS - 1
    await ward.look()
    assert await ward.missing(late) == 15
    ward.clock.seconds += 1
    await ward.look()
    assert await ward.missing(late) == 0
    assert await ward.is_whole()


async def test_a_second_failover_begins_from_the_start(ward: Ward, backup: Backup) -> None:
    """Before the second comparison of the first one, and by the same process."""
    await ward.place(lost := new_orders(25))
    await ward.entries.keep_compared_to(OTHER)
    await ward.look()
    await backup.restore()
    await ward.entries.keep_compared_to(Position("yet another", 5))
    ward.clock.seconds += AGAIN_SECONDS
    await ward.look()
    assert await ward.missing(lost) == 0
    assert not await ward.is_whole()
    await ward.look()
    assert not await ward.is_whole()
    await ward.look_again()
    assert await ward.is_whole()


@pytest.mark.parametrize("kept", [OTHER, None])
async def test_a_cache_that_takes_no_writes_is_not_compared_over_and_over(
    ward: Ward, kept: Position | None
) -> None:
    """It is full, or lacks its replicas; what was reached is kept once it takes writes again."""
    await ward.place(new_orders(5))
    await ward.client.execute("DEL", "polyglot:compared")
    if kept is not None:
        await ward.entries.keep_compared_to(kept)
        await ward.look()
    ward.entries.is_full = True
    with pytest.raises(UnavailableError):
        await ward.look_again()
    scans, epoch = ward.entries.scans, await ward.store.epoch()
    for _ in range(3):
        await ward.place(new_orders(1))
        with pytest.raises(UnavailableError):
            await ward.look_again()
    assert await ward.entries.compared_to() == kept
    ward.entries.is_full = False
    await ward.look()
    assert await ward.is_whole()
    assert (ward.entries.scans, await ward.store.epoch()) == (scans, epoch)


async def test_only_what_was_decided_is_decided_again(ward: Ward, backup: Backup) -> None:
    """Lost letters are letters again, and not orders; dirty orders are left to the sweeper."""
    condemned, dirty = accepted(1), accepted(2)
    await ward.cache.accept([single(condemned), single(dirty)])
    await ward.store.bury([DeadLetter(condemned.order.id, None, b"", "no", Stage.PERSIST, 1)])
    await ward.cache.settle([Settled(EntryState.DEAD, condemned)])
    await backup.restore()
    await ward.entries.keep_compared_to(OTHER)
    await ward.look()
    found = await ward.store.find([condemned.order.id, dirty.order.id])
    assert set(found.dead) == {condemned.order.id}
    assert not found.orders
    assert (await ward.cache.backlog()).orders == 1
