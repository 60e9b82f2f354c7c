"""When the cache may lack an acknowledged order, its reader hears 503 and never 404.

Every way in which a cache loses orders and looks complete, on real servers, and every way in which
what waits in the queue looks persisted.
"""

import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
import pytest_asyncio

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from tests.support.addresses import RABBITMQ, address_of, needs
from tests.support.eventually import eventually
from tests.support.processes import Process
from tests.support.queues import delete_queue
from tests.support.servers import copy_directory
from tests.support.stand import HEALED_SECONDS, Program, Stand, never_denied, stand_on

pytestmark = pytest.mark.timeout(240)

HOLD_SECONDS = 2
"""The stand's DELIVERY_HOLD_SECONDS_MAX."""
HAND_BACKS = 9
"""Of a message, each after it was held for that long: more time than an empty queue has to last."""


@pytest_asyncio.fixture
async def stand(postgres_server: EmbeddedPostgres) -> AsyncIterator[Stand]:
    async with stand_on(postgres_server) as stand:
        yield stand


async def order(api: Program, name: str = "Milk") -> str:
    """Place an order that must be accepted, and return its id."""
    answer = await api.place(name)
    assert answer.status == 202, answer
    order_id: str = answer.json["order_id"]
    return order_id


# --- what waits to be persisted ---


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_order_that_cannot_be_inserted_for_long(stand: Stand, workers: int) -> None:
    """Its message is handed back in turn, and never lies in the queue when that is looked at."""
    api = await stand.api()
    at_work = [stand.worker() for _ in range(workers)]
    await order(api)
    await stand.all_persisted()
    async with stand.record.connection.transaction():
        await stand.record.execute("LOCK TABLE orders IN SHARE MODE")  # it can be read
        order_id = await order(api, "late")
        async with never_denied(order_id, api):
            await stand.cache.say("FLUSHALL")
            await eventually(partial(handed_back, at_work), within_seconds=120)
    await api.answers(order_id, 200)


async def handed_back(workers: list[Process]) -> None:
    """Fail unless they have given back what they could not persist often enough."""
    log = "".join(worker.log() for worker in workers)
    assert log.count("record_away") + log.count("handed_back") >= HAND_BACKS


SLOW_INSERTS = """
CREATE FUNCTION take_a_second() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(1); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION take_a_second()
"""


@needs(RABBITMQ)
async def test_orders_that_are_persisted_slowly(stand: Stand) -> None:
    """All goes well, for longer than a quiet queue proves: what waits in a worker comes again."""
    orders = 40
    url = address_of(RABBITMQ)
    await delete_queue(url, "order_queue")
    settings = {
        "RABBITMQ_URL": url,
        "PERSIST_BATCH_ORDERS": "1",
        "DELIVERY_HOLD_SECONDS_MAX": "5",
        "WARM_QUIET_SECONDS": "6",
        "POSTGRES_STATEMENT_TIMEOUT_SECONDS": "10",
    }
    api = await stand.api(**settings)
    await stand.record.execute(SLOW_INSERTS)
    ids = [await order(api) for _ in range(orders)]
    await stand.cache.say("FLUSHALL")
    stand.worker(**settings)
    async with never_denied(ids[-1], api):
        await api.answers(ids[-1], 200, within=120)
    await stand.record.execute("DROP TRIGGER slow ON orders")
    for order_id in ids:
        await api.answers(order_id, 200)
    await delete_queue(url, "order_queue")


async def test_no_message_is_held_for_longer_than_it_may_be(stand: Stand) -> None:
    """Also where every transaction succeeds, only slowly."""
    orders = 10
    api = await stand.api()
    await stand.record.execute(SLOW_INSERTS)
    ids = [await order(api) for _ in range(orders)]
    await stand.queue.say("CONFIG", "RESETSTAT")
    stand.worker(PERSIST_BATCH_ORDERS="1", SWEEP_AGE_SECONDS="3600")
    longest = 0

    async def all_persisted() -> None:
        nonlocal longest
        for _, owner, idle_ms, _ in await pending(stand):
            if owner != b"released":
                longest = max(longest, idle_ms)
        assert await stand.queued() == 0

    await eventually(all_persisted, within_seconds=120)
    assert longest < 1_000 * (HOLD_SECONDS + 1)
    for order_id in ids:
        await api.answers(order_id, 200)


async def pending(stand: Stand) -> list[tuple[bytes, bytes, int, int]]:
    """Return id, owner, milliseconds and number of deliveries of what workers hold."""
    try:
        return [
            (entry, owner, idle_ms, deliveries)
            for entry, owner, idle_ms, deliveries in await stand.queue.say(
                "XPENDING", "order_queue", "workers", "-", "+", "100"
            )
        ]
    except Exception as error:  # no worker has made the group yet
        if "NOGROUP" not in str(error):
            raise
        return []


# --- what the cache's server loses ---


class Before(NamedTuple):
    """What there was of the cache before it accepted the order."""

    log_bytes: int
    copy: Path


async def lose_the_end_of_the_log(stand: Stand, before: Before) -> None:
    await stand.cache.kill()
    stand.cache.lose_log_after(before.log_bytes)
    await stand.cache.start()


async def restore_a_backup(stand: Stand, before: Before) -> None:
    await stand.cache.stop()
    shutil.rmtree(stand.cache.log_directory)
    copy_directory(before.copy, stand.cache.log_directory)
    await stand.cache.start()


LOSSES = {"log": lose_the_end_of_the_log, "backup": restore_a_backup}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_a_cache_that_comes_back_without_its_last_orders(
    stand: Stand, loss: str, fsync: str
) -> None:
    """Its copy of the epoch is there as before; also if it was less durable for a while."""
    api = await stand.api()
    await stand.cache.say("CONFIG", "SET", "appendfsync", fsync)
    before = Before(stand.cache.log_bytes(), stand.directory / "backup")
    copy_directory(stand.cache.log_directory, before.copy)
    order_id = await order(api)
    async with never_denied(order_id, api):
        await LOSSES[loss](stand, before)
        await api.reaches(cache=True)
        await api.answers(order_id, 503)
        assert await stand.dirty() == 0
        stand.worker()
        await api.answers(order_id, 200)


async def test_a_cache_that_is_no_longer_durable_is_not_enough(stand: Stand) -> None:
    """From the moment at which it does not fsync each write, the queue has to confirm."""
    api = await stand.api()
    await stand.queue_link.cut()
    await api.reaches(queue=False)
    assert (await api.place()).status == 202
    await stand.cache.say("CONFIG", "SET", "appendfsync", "everysec")
    answer = await api.place()
    assert answer.status == 504, answer
    await stand.cache.say("CONFIG", "SET", "appendfsync", "always")
    assert (await api.place()).status == 202


FILLER_BYTES = 100_000
OLDER_SECONDS = 2
"""The server counts a key's age in whole seconds."""


async def evict(stand: Stand, api: Program, order_id: str) -> None:
    """Have the server evict an order's entry, and keep the copy of the epoch, which is read."""
    entry = f"polyglot:order:{order_id}"
    await is_old(stand, api, entry)
    for number in range(5):
        await stand.cache.say("SET", f"filler:{number}", "x" * FILLER_BYTES)
    await is_old(stand, api, "filler:4")
    memory = (await stand.cache.say("INFO", "memory")).decode()
    used = int(memory.partition("used_memory:")[2].split()[0])
    await stand.cache.say("CONFIG", "SET", "maxmemory-samples", "64")
    await stand.cache.say("CONFIG", "SET", "maxmemory", str(used - FILLER_BYTES))

    async def evicted() -> None:
        await api.read(str(uuid4()))
        assert not await stand.cache.say("EXISTS", entry)

    await eventually(evicted, within_seconds=30)


async def is_old(stand: Stand, api: Program, key: str) -> None:
    """Wait until nobody has used a key for long, unlike the copy of the epoch."""

    async def attempt() -> None:
        await api.read(str(uuid4()))
        assert await stand.cache.say("OBJECT", "IDLETIME", key) >= OLDER_SECONDS

    await eventually(attempt, within_seconds=30)


async def test_a_cache_that_evicts_orders(stand: Stand) -> None:
    """Under `allkeys-lru` nothing is certain, and after it not before all is persisted."""
    api = await stand.api()
    order_id = await order(api)
    await stand.cache.say("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await evict(stand, api, order_id)
    async with never_denied(order_id, api):
        await api.answers(order_id, 503)
        async with stand.record.connection.transaction():
            await stand.record.execute("LOCK TABLE orders IN SHARE MODE")
            stand.worker()  # which takes the copy away
            await eventually(partial(no_copy, stand), within_seconds=60)
            await stand.cache.say("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
            await stand.cache.say("CONFIG", "SET", "maxmemory", "0")
            await api.answers(order_id, 503)
        await api.answers(order_id, 200)


async def no_copy(stand: Stand) -> None:
    assert await stand.cache.say("KEYS", "polyglot:epoch*") == []


# --- failovers ---


async def test_a_replica_that_lagged_when_it_was_promoted(stand: Stand) -> None:
    """It has the copy of the epoch, and not the last order."""
    api = await stand.api()
    replica, link = await stand.replica()
    link.stall()
    order_id = await order(api)
    async with never_denied(order_id, api):
        await stand.cache.kill()
        await replica.lead()
        stand.reach_cache_at(replica)
        await api.reaches(cache=True)
        await api.answers(order_id, 503)
        assert await stand.dirty() == 0
        stand.worker()
        await api.answers(order_id, 200)
    await api.is_warm()


async def test_a_replica_that_lags_while_the_queue_is_away(stand: Stand) -> None:
    """The primary alone is not safe; what is acknowledged is on the replica, and not lost."""
    api = await stand.api()
    replica, link = await stand.replica()
    await stand.queue_link.cut()
    await api.reaches(queue=False)
    link.stall()
    unknown = await api.place("lagging", "key")
    assert unknown.status == 504, unknown
    link.resume()

    async def acknowledged() -> str:
        answer = await api.place("lagging", "key")
        assert answer.status == 202, answer
        order_id: str = answer.json["order_id"]
        return order_id

    order_id = await eventually(acknowledged, within_seconds=30)
    async with never_denied(order_id, api):
        await stand.cache.kill()
        await replica.lead()
        stand.reach_cache_at(replica)
        await api.reaches(cache=True, queue=False)
        assert await stand.dirty() == 1
        stand.worker()
        await api.answers(order_id, 200)

        async def persisted() -> None:
            assert await stand.kept() == ["lagging"]

        await eventually(persisted, within_seconds=HEALED_SECONDS)


async def test_a_primary_that_is_demoted_and_promoted_again(stand: Stand) -> None:
    """Processes keep their connections to it; it loses what its new primary never had."""
    api = await stand.api()
    replica, link = await stand.replica()
    link.stall()
    order_id = await order(api)
    async with never_denied(order_id, api):
        await replica.lead()
        await stand.cache.follow(replica.port)
        await api.answers(order_id, 503)
        assert await stand.dirty() == 0
        accepted = await api.place("by the queue alone")
        assert accepted.status in (202, 504), accepted
        await api.reaches(cache=False)
        other = await order(api)
        assert await stand.dirty() == 0
        async with never_denied(other, api):
            await stand.cache.lead()
            await api.reaches(cache=True)
            await api.answers(order_id, 503)
            stand.worker()
            await api.answers(order_id, 200)
            await api.answers(other, 200)
    await api.is_warm()


# --- several processes ---


async def test_two_api_processes_and_an_emptied_cache(stand: Stand) -> None:
    """Neither denies what either accepted, and both are certain again once it is persisted."""
    api = await stand.api(API_PROCESSES="2")
    ids = [await order(api) for _ in range(6)]  # each over a connection of its own
    async with AsyncExitStack() as readers:
        for order_id in ids:
            await readers.enter_async_context(never_denied(order_id, api))
        await stand.cache.say("FLUSHALL")
        await api.answers(ids[0], 503)
        ids.append(await order(api))
        await api.answers(ids[0], 503)
        stand.worker()
        for order_id in ids:
            await api.answers(order_id, 200)
    await api.is_warm()
    unknown = [str(uuid4()) for _ in range(20)]
    assert {await api.read(order_id) for order_id in unknown} == {404}


AN_HOUR_SECONDS = 3_600


async def test_processes_whose_clocks_differ(stand: Stand) -> None:
    """Nobody denies an order; one that the queue lost is persisted by the hour later, not lost."""
    clock = {}
    for name, seconds in (("ahead", AN_HOUR_SECONDS), ("behind", -AN_HOUR_SECONDS), ("worker", 0)):
        clock[name] = stand.directory / f"clock-{name}"
        clock[name].write_text(str(seconds))
    ahead, behind = [await stand.api(FAULT_CLOCK=str(clock[name])) for name in ("ahead", "behind")]
    right = await stand.api()
    apis = (ahead, behind, right)
    early, late, now = [await order(api) for api in apis]
    async with AsyncExitStack() as readers:
        for order_id in (early, late, now):
            await readers.enter_async_context(never_denied(order_id, *apis))
        await stand.queue.say("FLUSHALL")
        worker = stand.worker(FAULT_CLOCK=str(clock["worker"]))
        swept = {"dirty": 1}

        async def all_but_one_swept() -> None:
            assert await stand.dirty() == swept["dirty"]

        await eventually(all_but_one_swept, within_seconds=HEALED_SECONDS)
        clock["worker"].write_text(str(AN_HOUR_SECONDS))
        swept["dirty"] = 0
        await eventually(all_but_one_swept, within_seconds=HEALED_SECONDS)
        clock["worker"].write_text("0")

        worker.send(signal.SIGSTOP)
        waiting = [await order(api) for api in apis]
        for order_id in waiting:
            await readers.enter_async_context(never_denied(order_id, *apis))
        await stand.cache.say("FLUSHALL")
        for api in apis:
            await api.answers(waiting[0], 503)
        worker.send(signal.SIGCONT)
        for order_id in waiting:
            await right.answers(order_id, 200)
    for api in apis:
        await api.is_warm()
    assert await stand.record.value("SELECT count(*) FROM orders") == 6
