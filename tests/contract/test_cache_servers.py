"""What the cache port promises of servers that are full, go, stall, come back, or are set wrong."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.redis import keys
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.redis.script import Script
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.cache import Cache, Settled, Unit
from tests.support.cache import (
    AWAY,
    LATER,
    TTL_SECONDS,
    dirty_ids,
    entry_of,
    ids_of,
    new_client,
)
from tests.support.eventually import WAIT_SECONDS, eventually
from tests.support.orders import accepted, bulk, single
from tests.support.servers import redis_command


@pytest_asyncio.fixture
async def own_client(own_server: EmbeddedValkey) -> AsyncIterator[RedisClient]:
    client = new_client(own_server.url, timeout_seconds=0.3)
    yield client
    await client.close()


@pytest.fixture
def own_cache(own_client: RedisClient) -> RedisCache:
    return RedisCache(own_client, clean_ttl_seconds=TTL_SECONDS)


# --- the memory limit ------------------------------------------------------------------------


async def test_at_the_memory_limit_accept_is_refused_whole_and_settle_works(
    own_cache: RedisCache, own_server: EmbeddedValkey
) -> None:
    """A full cache stores nothing and evicts nothing dirty; settling makes room again."""
    units: list[Unit] = []
    for n in range(40):
        units.append(bulk(100, n))
        await own_cache.accept([units[-1]])
    used = _info(await redis_command(own_server.url, "INFO", "memory"), "used_memory")
    await redis_command(own_server.url, "CONFIG", "SET", "maxmemory", str(used - 100_000))
    refused = bulk(10)
    with pytest.raises(UnavailableError, match="OOM"):
        await own_cache.accept([refused])
    assert (await own_cache.read(ids_of(refused))).entries == [None] * 10
    assert (await own_cache.backlog()).orders == 4000
    assert None not in (await own_cache.read(ids_of(*units))).entries
    await own_cache.settle(
        [Settled(EntryState.CLEAN, member.accepted) for member in units[0].members]
    )
    for n in range(1, 40):
        await own_cache.settle(
            [Settled(EntryState.CLEAN, member.accepted) for member in units[n].members]
        )
    assert (await own_cache.accept([refused])).found == {}  # clean entries gave way


def _info(text: bytes, name: str) -> int:
    facts = dict(line.partition(":")[::2] for line in text.decode().split())
    return int(facts[name])


# --- servers that go, stall and come back ----------------------------------------------------


async def test_a_cache_that_is_away_is_unavailable_and_back_within_a_second(
    own_cache: RedisCache, own_server: EmbeddedValkey
) -> None:
    """While it is away every call is refused; a durable server comes back with everything."""
    order = accepted()
    await own_cache.accept([single(order)])
    await own_server.stop()
    for call in _every_call(own_cache):
        with pytest.raises(UnavailableError):
            await call
    await own_server.start()
    read = await eventually(lambda: own_cache.read([order.order.id]), retried=AWAY)
    assert [entry_of(order)] == read.entries
    assert [order.order.id] == await dirty_ids(own_cache)


def _every_call(cache: Cache) -> Sequence[Coroutine[None, None, object]]:
    order = accepted()
    return [
        cache.accept([single(order)]),
        cache.read([order.order.id]),
        cache.backfill([order]),
        cache.settle([Settled(EntryState.CLEAN, order)]),
        cache.forget_dead([order.order.id]),
        cache.dirty_before(LATER, 10),
        cache.backlog(),
        cache.reigns("reign", None),
        cache.survives_failover("reign"),
        cache.begin_warming("token"),
        cache.end_warming(),
        cache.copy_epoch("1", "token", "reign"),
        cache.ping(),
    ]


@pytest.mark.parametrize("reads", [True, False])
async def test_a_stalled_server_leaves_writes_unknown_and_reads_unavailable(
    own_cache: RedisCache, own_server: EmbeddedValkey, reads: bool
) -> None:
    """Sent and not answered in time: a write may have happened, a read changed nothing."""
    order = accepted()
    await own_cache.backlog()
    assert own_server.pid is not None
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            if reads:
                with pytest.raises(UnavailableError):
                    await own_cache.read([order.order.id])
            else:
                with pytest.raises(UnknownOutcomeError):
                    await own_cache.accept([single(order)])
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    read = await eventually(lambda: own_cache.read([order.order.id]), retried=AWAY)
    assert [None if reads else entry_of(order)] == read.entries


async def test_durability_is_asked_at_connect_and_at_each_ping(
    own_cache: RedisCache, own_server: EmbeddedValkey
) -> None:
    """A reply says whether its server fsyncs first; the next ping sees a change."""
    assert (await own_cache.accept([single(accepted())])).durable
    assert (await own_cache.ping()).warnings == ()
    for name, value in [
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("appendonly", "no"),
    ]:
        await redis_command(own_server.url, "CONFIG", "SET", name, value)
        state = await own_cache.ping()
        assert state.version.partition(" ")[0] in ("Valkey", "Redis")
        assert any(name in str(warning) for warning in state.warnings)
        assert not (await own_cache.accept([single(accepted())])).durable
    for name, value in [
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("appendonly", "yes"),
    ]:
        await redis_command(own_server.url, "CONFIG", "SET", name, value)

    async def is_well() -> None:
        assert (await own_cache.ping()).warnings == ()

    await eventually(is_well)
    assert (await own_cache.accept([single(accepted())])).durable


async def test_a_log_that_was_just_turned_on_holds_nothing_yet(
    own_cache: RedisCache, own_server: EmbeddedValkey
) -> None:
    """Until its first rewrite has ended, the server would start without it."""
    await redis_command(own_server.url, "CONFIG", "SET", "appendonly", "no")
    await own_cache.accept([single(accepted())])
    await redis_command(own_server.url, "CONFIG", "SET", "rdb-key-save-delay", "500000")
    await redis_command(own_server.url, "CONFIG", "SET", "appendonly", "yes")
    assert "not complete" in str((await own_cache.ping()).warnings)
    reply = await own_cache.accept([single(accepted(1))])
    assert not reply.durable
    assert not await own_cache.survives_failover(reply.reign)

    async def survives() -> None:
        assert await own_cache.survives_failover(reply.reign)

    await eventually(survives, within_seconds=30)


@pytest.mark.parametrize(
    ("name", "value", "back"),
    [
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "volatile-ttl"),
    ],
)
async def test_whether_the_cache_alone_is_enough_is_asked_each_time(
    own_cache: RedisCache, own_server: EmbeddedValkey, name: str, value: str, back: str
) -> None:
    """A setting that was changed a moment ago, and no ping has seen, counts already."""
    reply = await own_cache.accept([single(accepted())])
    assert await own_cache.survives_failover(reply.reign)
    await redis_command(own_server.url, "CONFIG", "SET", name, value)
    assert not await own_cache.survives_failover(reply.reign)
    await redis_command(own_server.url, "CONFIG", "SET", name, back)
    assert await own_cache.survives_failover(reply.reign)


async def test_settings_that_would_evict_or_overflow_are_warned_of(
    own_cache: RedisCache, own_server: EmbeddedValkey
) -> None:
    """An eviction policy that takes dirty orders and a missing memory limit are told."""
    await redis_command(own_server.url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await redis_command(own_server.url, "CONFIG", "SET", "maxmemory", "0")
    warnings = "\n".join(map(str, (await own_cache.ping()).warnings))
    assert "allkeys-lru" in warnings
    assert "maxmemory is 0" in warnings


@pytest.mark.parametrize("durable", [None, True, False])
async def test_a_server_that_forbids_config_is_what_the_setting_says(
    own_server: EmbeddedValkey, durable: bool | None
) -> None:
    """Unknown is not durable; the setting decides where the server cannot be asked."""
    await redis_command(
        own_server.url,
        "ACL",
        "SETUSER",
        "default",
        "reset",
        "on",
        "nopass",
        "~*",
        "+@all",
        "-config",
    )
    client = new_client(own_server.url)
    try:
        cache = RedisCache(client, durable=durable)
        assert (await cache.accept([single(accepted())])).durable is bool(durable)
        assert len((await cache.ping()).warnings) == (1 if durable is None else 0)
    finally:
        await client.close()


async def test_a_server_is_cold_after_a_restart(
    own_cache: RedisCache, own_server: EmbeddedValkey
) -> None:
    """A log may have lost its end, or be a backup's; the copy counts for one reign only."""
    await own_cache.begin_warming("token")
    reign = (await own_cache.read([])).reign
    assert await own_cache.copy_epoch("7", "token", reign)
    assert (await own_cache.read([])).epoch == "7"
    await own_server.stop()
    await own_server.start()
    read = await eventually(lambda: own_cache.read([]), retried=AWAY)
    assert read.epoch is None
    assert not await own_cache.reigns(reign, "7")
    assert await own_cache.copy_epoch("8", "token", read.reign)
    assert (await own_cache.read([])).epoch == "8"


async def test_a_stray_that_was_accepted_meanwhile_stays_dirty(
    own_cache: RedisCache, own_client: RedisClient
) -> None:
    """Between seeing an id without an entry and removing it, the order may have been accepted."""
    order = accepted()
    await own_cache.accept([single(order)])
    name = keys.entry(order.order.id)
    removed = await Script("forget_stray").run(own_client, [keys.DIRTY, name], [keys.member(name)])
    assert removed == 0
    assert await dirty_ids(own_cache) == [order.order.id]
