"""What is answered under a key that was used before: no id that is not stored, nothing without end.

Real processes, stores in which an earlier order is in every state that it can be in.
"""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from tests.support.eventually import eventually
from tests.support.stand import Program, Stand, stand_on

pytestmark = pytest.mark.timeout(180)

BULK = [f"product {number}" for number in range(900)]
RETRIES = 40
MEMORY_BYTES = 2_000_000
"""A third of what so many messages take."""


@pytest_asyncio.fixture
async def stand(postgres_server: EmbeddedPostgres) -> AsyncIterator[Stand]:
    async with stand_on(postgres_server) as stand:
        yield stand


async def assert_all_there(api: Program, ids: list[str]) -> None:
    for order_id in ids:
        assert await api.read(order_id) == 200, order_id


@pytest.mark.parametrize(
    ("first", "second"), [(1, 3), (3, 1), (2, 3), (3, 2)], ids=lambda size: f"of {size}"
)
async def test_a_bulk_beside_one_of_another_size(stand: Stand, first: int, second: int) -> None:
    """Under the key of a bulk that is not persisted yet it is refused, also by a bulk of one."""
    api = await stand.api()
    stored = await api.place_bulk(BULK[:first], "key")
    assert stored.status == 202
    other = await api.place_bulk(BULK[:second], "key")
    assert other.status == 422, other
    stand.worker()
    await stand.all_persisted()
    assert await stand.kept() == sorted(BULK[:first])
    await assert_all_there(api, stored.json["order_ids"])
    assert (await api.place_bulk(BULK[:second], "key")).status == 422


@pytest.mark.parametrize("size", [1, 2])
async def test_a_longer_bulk_while_the_record_stands_still(stand: Stand, size: int) -> None:
    """What the cache shows is a part of it; nothing is stored until the record can be asked."""
    api = await stand.api()
    stand.worker()
    stored = await api.place_bulk(BULK[:size], "key")
    await stand.all_persisted()
    stand.record_link.stall()
    longer = await api.place_bulk(BULK[: size + 1], "key")
    assert longer.status == 503, longer
    same = await api.place_bulk(BULK[:size], "key")
    assert (same.status, same.json["order_ids"]) == (202, stored.json["order_ids"])
    stand.record_link.resume()

    async def refused() -> None:
        assert (await api.place_bulk(BULK[: size + 1], "key")).status == 422

    await eventually(refused, within_seconds=30)
    await stand.all_persisted()
    assert await stand.kept() == sorted(BULK[:size])


async def test_two_orders_that_were_acknowledged_under_one_key(stand: Stand) -> None:
    """One was accepted without the cache, one without the queue: persisted, or a dead letter."""
    api = await stand.api()
    await stand.cache_link.cut()
    await api.reaches(cache=False)
    one = await api.place("without the cache", "key")
    assert one.status == 202, one
    stand.cache_link.restore()
    await api.reaches(cache=True, queue=True)

    await stand.queue_link.cut()
    await api.reaches(queue=False)

    async def placed() -> None:
        other = await api.place("without the queue", "key")
        assert other.status == 202, other
        assert other.json["order_id"] == one.json["order_id"]

    await eventually(placed, within_seconds=30)  # the cache is worth waiting for again
    stand.queue_link.restore()
    stand.worker()
    await stand.all_persisted()
    assert await stand.kept() == ["without the cache", "without the queue"]


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_retries_do_not_make_the_queue_grow(stand: Stand, fsync: str) -> None:
    """A retry of what waits is answered and adds nothing; others are accepted as before."""
    stand.cache.lines.append(f"appendfsync {fsync}")
    await stand.cache.stop()
    await stand.cache.start()
    api = await stand.api(DIRTY_ORDERS_MAX="1000", QUEUE_MESSAGES_MAX="50")
    first = await api.place_bulk(BULK, "key")
    assert first.status == 202
    bytes_used = await memory_bytes(stand)
    for _ in range(RETRIES):
        answer = await api.place_bulk(BULK, "key")
        assert (answer.status, answer.json) == (202, first.json)
    assert await stand.dirty() == len(BULK)
    # With a cache that may lose it, one retry a minute brings it to the queue again.
    assert await stand.queued() <= (1 if fsync == "always" else 3)
    assert await memory_bytes(stand) < bytes_used + MEMORY_BYTES
    assert (await api.place()).status == 202
    stand.worker()
    await stand.all_persisted()
    assert await stand.kept() == sorted([*BULK, "Milk"])


async def memory_bytes(stand: Stand) -> int:
    """Return what cache and queue use together."""
    texts = [(await server.say("INFO", "memory")).decode() for server in (stand.cache, stand.queue)]
    return sum(int(text.partition("used_memory:")[2].split()[0]) for text in texts)


async def test_an_entry_of_a_newer_version_harms_nobody_beside_it(stand: Stand) -> None:
    """Whoever asks for it is refused, in every way; its neighbours are read, taken and swept."""
    api = await stand.api()
    good = [(await api.place(f"good {number}")).json["order_id"] for number in range(8)]
    # Its id is the one that a key stands for, so that it is met by a retry as well.
    bad = (await api.place("bad", "key")).json["order_id"]
    await stand.cache.say("SET", f"polyglot:order:{bad}", "Z1 x 1 0\n{}")
    await stand.cache.say("ZADD", "polyglot:dirty", "1", bad)
    stray = str(uuid4())
    await stand.cache.say("SET", f"polyglot:order:{stray}", "Z")
    await stand.cache.say("ZADD", "polyglot:dirty", "2", stray)

    for _ in range(20):  # their reads share a command
        statuses = await asyncio.gather(*[api.read(each) for each in (bad, stray, *good)])
        assert statuses == [503, 503, *[200] * len(good)]
    for each in (bad, stray):
        assert (await api.request("GET", f"/api/orders/{each}/status")).status == 503
    placed = await asyncio.gather(
        api.place("bad", "key"), *[api.place(f"also {n}", f"key-{n}") for n in range(8)]
    )
    assert [answer.status for answer in placed] == [503, *[202] * 8]

    await stand.queue.say("FLUSHALL")  # so that only the sweeper can persist them
    stand.worker()

    async def swept() -> None:
        assert await stand.dirty() == 2

    await eventually(swept, within_seconds=60)
    names = [f"{word} {number}" for word in ("also", "good") for number in range(8)]
    assert await stand.kept() == names
    assert await stand.cache.say("GET", f"polyglot:order:{stray}") == b"Z"
    assert await api.read(bad) == 503
