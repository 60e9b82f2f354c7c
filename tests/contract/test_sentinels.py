"""How a client finds the primary by its Sentinels, leaves it, and what it tells of them."""

import asyncio
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.state import StoreState
from tests.support.cache import AWAY, new_client
from tests.support.certificates import certificate_for_loopback
from tests.support.eventually import eventually
from tests.support.orders import accepted, single
from tests.support.own_valkey import OwnValkey
from tests.support.patience import patiently
from tests.support.processes import free_port
from tests.support.redis_ha import NAME, RedisHa, Sentinel, redis_ha
from tests.support.servers import redis_value, running, short_directory


@pytest_asyncio.fixture
async def topology() -> AsyncIterator[RedisHa]:
    async with redis_ha() as topology:
        yield topology


@pytest_asyncio.fixture
async def cache(topology: RedisHa) -> AsyncIterator[RedisCache]:
    client = new_client(topology.url, timeout_seconds=1.0)
    yield RedisCache(client)
    await client.close()


async def details(cache: RedisCache) -> str:
    """Return what the operator reads."""
    state: StoreState = await eventually(cache.ping, retried=AWAY)
    return "\n".join([state.version, *map(str, state.warnings)])


async def test_what_the_operator_reads(topology: RedisHa, cache: RedisCache) -> None:
    """Each Sentinel that is away, and that they could not promote any more."""
    assert (await details(cache)).endswith(", 1 replica, 3 of 3 Sentinels")
    await topology.sentinels[0].kill()
    text = await details(cache)
    assert "2 of 3 Sentinels" in text
    assert f"Sentinel 127.0.0.1:{topology.sentinels[0].port} does not answer: " in text
    await topology.sentinels[1].kill()

    async def no_quorum() -> None:
        assert "NOQUORUM" in await details(cache)

    await eventually(no_quorum)
    await topology.sentinels[2].kill()
    assert "no Sentinel names the primary" in await details(cache)
    assert (await cache.accept([single(accepted())])).durable


async def test_a_name_that_no_sentinel_knows(topology: RedisHa) -> None:
    """The line says which."""
    client = new_client(topology.url.replace(f"/{NAME}/", "/another/"))
    try:
        with pytest.raises(UnavailableError, match="no primary of the name another"):
            await RedisCache(client).ping()
    finally:
        await client.close()


async def test_a_primary_that_is_cut_off_is_left(topology: RedisHa, cache: RedisCache) -> None:
    """It answers as before, and its connections stay; the Sentinels have another one."""
    reign = (await cache.accept([single(accepted())])).reign
    former = await topology.isolate()
    await topology.promoted(former)

    async def left() -> None:
        assert (await cache.accept([single(accepted())])).reign != reign

    await eventually(left, within_seconds=10, retried=(*AWAY, AssertionError))
    assert not await cache.reigns(reign, None)
    assert not await cache.survives_failover(reign)


async def test_a_lonely_sentinel_does_not_lead_back(topology: RedisHa, cache: RedisCache) -> None:
    """It was away during the failover: what it says is older than what the process knows."""
    first = (await cache.read([])).reign
    late = topology.sentinels[0]
    await late.kill()
    former = await topology.isolate()
    await topology.promoted(former)
    reign = await new_reign(cache, first)
    for sentinel in topology.sentinels[1:]:
        sentinel.send(signal.SIGSTOP)
    try:
        await late.start(former)
        place = [b"127.0.0.1", b"%d" % former.port]
        assert place == await patiently(partial(late.say, "GET-MASTER-ADDR-BY-NAME", NAME))
        before, looks = await connections(late), 0

        async def asked_often() -> None:
            nonlocal looks
            looks += 1
            assert (await cache.accept([single(accepted())])).reign == reign
            assert await connections(late) >= before + looks + 3

        await eventually(asked_often)
    finally:
        for sentinel in topology.sentinels[1:]:
            sentinel.send(signal.SIGCONT)


async def connections(sentinel: Sentinel) -> int:
    """Return how often anybody has connected to it; this look is one more."""
    info = await redis_value(sentinel.url, "INFO", "stats")
    return int(info.partition(b"total_connections_received:")[2].split()[0])


async def new_reign(cache: RedisCache, former: str) -> str:
    """Return the reign once it is another one."""

    async def attempt() -> str:
        reign = (await cache.read([])).reign
        assert reign != former
        return reign

    return await eventually(attempt, retried=(*AWAY, AssertionError))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("?sentinel_password=secret", ""),
        ("?sentinel_username=default&sentinel_password=secret", ""),
        ("?sentinel_password=wrong", "WRONGPASS"),
        ("", "NOAUTH"),
    ],
)
async def test_sentinels_that_ask_for_a_password(parameters: str, expected: str) -> None:
    """It is another one than the server's."""
    with short_directory() as directory:
        async with running(OwnValkey(directory / "valkey")) as server:
            sentinel = Sentinel(directory / "sentinel", quorum=1)
            sentinel.lines.append("requirepass secret")
            await sentinel.start(server)
            client = new_client(
                f"valkey+sentinel://127.0.0.1:{sentinel.port}/{NAME}{parameters}",
                timeout_seconds=1.0,
            )
            cache = RedisCache(client)
            try:
                if expected:

                    async def refused() -> None:
                        with pytest.raises(UnavailableError, match=expected):
                            await cache.ping()

                    await eventually(refused)
                else:
                    text = await details(cache)
                    assert "1 Sentinels cannot promote" in text
                    assert "no replica to promote" in text
            finally:
                await client.close()
                await sentinel.kill()


async def test_a_node_of_a_cluster_is_refused_as_cache_and_as_queue() -> None:
    """It answers, and would refuse every batch; the line says what it is."""
    with short_directory() as directory:
        server = OwnValkey(directory / "valkey")
        server.lines += ["cluster-enabled yes", f"cluster-port {free_port()}"]
        async with running(server):
            client = new_client(server.url)
            plain = new_client(server.url)
            try:
                with pytest.raises(UnavailableError, match="is a node of a cluster") as refused:
                    await ValkeyStreamsQueue(plain, lambda: plain).ping()
                assert "not supported" in refused.value.remedy
                with pytest.raises(UnavailableError, match="is a node of a cluster") as refused:
                    await RedisCache(client).ping()
                assert "not supported" in refused.value.remedy
            finally:
                await client.close()
                await plain.close()


async def test_a_replica_is_refused_as_queue(topology: RedisHa) -> None:
    """It answers, and would confirm nothing."""
    client = new_client((await topology.replica()).url)
    try:
        with pytest.raises(UnavailableError, match="is a replica"):
            await ValkeyStreamsQueue(client, lambda: client).ping()
    finally:
        await client.close()


@pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("openssl")),
    reason="the bundled Valkey speaks no TLS, and no Redis is installed, or no openssl",
)
async def test_sentinels_and_their_server_over_tls() -> None:
    """Both are verified, by the same authority."""
    with short_directory() as directory:
        certificate = certificate_for_loopback(directory)
        other = certificate_for_loopback(directory, name="other")
        server, sentinel = free_port(), free_port()
        tls = (
            f"port 0\nbind 127.0.0.1\ndir {directory}\ntls-auth-clients no\ntls-replication yes\n"
            f"tls-cert-file {certificate.path}\ntls-key-file {certificate.key}\n"
            f"tls-ca-cert-file {certificate.path}\n"
        )
        (directory / "redis.conf").write_text(f"{tls}tls-port {server}\nsave ''\n")
        (directory / "sentinel.conf").write_text(
            f"{tls}tls-port {sentinel}\nsentinel monitor {NAME} 127.0.0.1 {server} 1\n"
        )
        commands = (("redis.conf",), ("sentinel.conf", "--sentinel"))
        processes = [
            await asyncio.create_subprocess_exec(
                "redis-server", *words, cwd=directory, stdout=asyncio.subprocess.DEVNULL
            )
            for words in commands
        ]
        clients = [
            RedisClient(
                f"rediss+sentinel://127.0.0.1:{sentinel}/{NAME}",
                authority=ssl.create_default_context(cafile=authority.path),
                connect_timeout_seconds=2,
                command_timeout_seconds=2,
            )
            for authority in (certificate, other)
        ]
        try:
            assert "1 of 1 Sentinels" in await details(RedisCache(clients[0]))
            with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await RedisCache(clients[1]).ping()
        finally:
            for client in clients:
                await client.close()
            for process in processes:
                process.kill()
                await process.wait()
