"""The pipelined connection and the client that keeps it alive, against real servers."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.redis.connection import RedisConnection, ReplyError
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import (
    UnavailableError,
    UnknownOutcomeError,
)
from tests.support.certificates import certificate_for_loopback
from tests.support.eventually import eventually
from tests.support.servers import redis_command, running, short_directory

AWAY = (UnavailableError, UnknownOutcomeError)


@asynccontextmanager
async def client_of(
    url: str, *, timeout_seconds: float = 2.0, in_flight_bytes_max: int = 1 << 20
) -> AsyncIterator[RedisClient]:
    client = RedisClient(
        url,
        connect_timeout_seconds=timeout_seconds,
        command_timeout_seconds=timeout_seconds,
        in_flight_bytes_max=in_flight_bytes_max,
    )
    try:
        yield client
    finally:
        await client.close()


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    async with client_of(redis_url) as client:
        yield client


@asynccontextmanager
async def stalled(server: EmbeddedValkey) -> AsyncIterator[None]:
    """Keep the server from running, its sockets open."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@asynccontextmanager
async def scripted_server(
    answer: Callable[[bytes], bytes], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server that says what no real one can be brought to say at will; yields its address."""
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(answer(data))
        writer.close()
        await writer.wait_closed()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        await asyncio.gather(*served, return_exceptions=True)


# --- commands --------------------------------------------------------------------------------


async def test_callers_share_a_connection_and_each_gets_its_own_reply(client: RedisClient) -> None:
    """A thousand concurrent commands over one connection are answered each with its own."""
    replies = await asyncio.gather(*[client.execute("ECHO", n) for n in range(1000)])
    assert [str(n).encode() for n in range(1000)] == replies
    clients = await client.execute("CLIENT", "LIST")
    assert clients.count(b"cmd=client") == 1


async def test_an_error_reply_is_raised_with_its_code(client: RedisClient) -> None:
    """A refused command raises `ReplyError`; the connection goes on."""
    await client.execute("SET", "text", "x")
    with pytest.raises(ReplyError) as caught:
        await client.execute("LPUSH", "text", "y")
    assert caught.value.code == "WRONGTYPE"
    assert await client.execute("GET", "text") == b"x"


async def test_a_pipeline_raises_its_first_error_and_ran_the_rest(client: RedisClient) -> None:
    """A pipeline is no transaction: what was not refused took effect."""
    with pytest.raises(ReplyError):
        await client.pipeline(("SET", "a", 1), ("LPUSH", "a", 2), ("SET", "b", 3))
    assert await client.pipeline(("GET", "a"), ("GET", "b"), ("GET", "c")) == [b"1", b"3", None]


async def test_a_cancelled_caller_does_not_shift_replies(client: RedisClient) -> None:
    """The reply to a cancelled command is dropped, and the next caller gets its own."""
    await client.execute("PING")
    held = asyncio.create_task(client.execute("BLPOP", "nothing", "0.2"))
    following = asyncio.create_task(client.execute("ECHO", "mine"))
    await asyncio.sleep(0)
    held.cancel()
    assert await following == b"mine"
    assert held.cancelled()
    assert await client.execute("ECHO", "next") == b"next"


# --- connecting, losing, finding again -------------------------------------------------------


async def test_no_command_passes_before_the_hooks_have_seen_the_connection(redis_url: str) -> None:
    """A hook sees every new connection first, also after a loss."""
    seen: list[str] = []

    async def hook(connection: RedisConnection) -> None:
        seen.append(str(await connection.execute("CLIENT", "GETNAME")))
        await connection.execute("CLIENT", "SETNAME", "greeted")

    async with client_of(redis_url) as client:
        client.on_connect(hook)
        assert await client.execute("CLIENT", "GETNAME") == b"greeted"
        (await client.connection()).close("lost")
        assert await client.execute("CLIENT", "GETNAME") == b"greeted"
    assert seen == ["None", "None"]


async def test_a_server_that_is_away_is_refused_at_once_and_found_when_it_comes() -> None:
    """Calls fail while it is away, and succeed soon after its start."""
    with short_directory() as directory:
        server = EmbeddedValkey(directory / "valkey")
        async with running(server):
            url = server.url
        async with client_of(url) as client:
            for _ in range(3):
                with pytest.raises(UnavailableError):
                    await client.execute("PING")
            async with running(server):
                pong = await eventually(lambda: client.execute("PING"), retried=AWAY)
                assert pong == b"PONG"


async def test_what_is_in_flight_when_the_server_dies_has_an_unknown_outcome(
    own_server: EmbeddedValkey,
) -> None:
    """A command that was sent and not answered may have happened; afterwards all is well again."""
    async with client_of(own_server.url) as client:
        await client.execute("PING")
        waiting = asyncio.create_task(client.execute("BLPOP", "nothing", 0))
        await asyncio.sleep(0)
        await own_server.stop()
        with pytest.raises(UnknownOutcomeError):
            await waiting
        with pytest.raises(UnavailableError):
            await client.execute("PING")
        await own_server.start()
        await eventually(lambda: client.execute("PING"), retried=AWAY)


async def test_a_stalled_server_fails_everything_in_flight_in_time(
    own_server: EmbeddedValkey,
) -> None:
    """A silent server is given up within the deadline, refused fast, and found when it runs."""
    async with client_of(own_server.url, timeout_seconds=0.3) as client:
        await client.execute("PING")
        async with stalled(own_server):
            outcomes = await asyncio.gather(
                *[client.execute("INCR", "n") for _ in range(3)], return_exceptions=True
            )
            assert [UnknownOutcomeError] * 3 == [type(outcome) for outcome in outcomes]
            for _ in range(2):
                with pytest.raises(UnavailableError):
                    await client.execute("INCR", "n")
        found = await eventually(lambda: client.execute("GET", "n"), retried=AWAY)
        assert found == b"3"  # the unknown ones did happen, the refused ones did not


async def test_bytes_in_flight_are_bounded(own_server: EmbeddedValkey) -> None:
    """What would exceed the bound is refused before it is sent; it fits again afterwards."""
    async with client_of(own_server.url, in_flight_bytes_max=100_000) as client:
        await client.execute("PING")
        async with stalled(own_server):
            first = asyncio.create_task(client.execute("SET", "a", "x" * 90_000))
            await asyncio.sleep(0)
            with pytest.raises(UnavailableError):
                await client.execute("SET", "b", "x" * 20_000)
        assert await first == b"OK"
        await client.execute("SET", "b", "x" * 20_000)
        assert await client.execute("EXISTS", "a", "b") == 2


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_that_was_stalled_itself_blames_nobody(
    redis_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A reply that lay in the socket while this process was busy counts, though it is late."""

    async def stall() -> None:
        async with client_of(redis_url, timeout_seconds=0.1) as hasty:
            await eventually(lambda: hasty.execute("PING"), retried=AWAY)
            waiting = asyncio.create_task(hasty.execute("PING"))
            await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251  # the stall under test
            assert await waiting == b"PONG"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(stall())


async def test_a_server_that_still_loads_is_unavailable() -> None:
    """LOADING is no connection yet; once the data is there, calls pass."""
    loading = True

    def answer(data: bytes) -> bytes:
        reply = b"-LOADING loading the dataset\r\n" if loading else b"+PONG\r\n"
        return reply * data.count(b"PING")

    async with scripted_server(answer) as address, client_of(address) as client:
        with pytest.raises(UnavailableError, match="LOADING"):
            await client.execute("PING")
        loading = False
        await eventually(lambda: client.execute("PING"), retried=AWAY)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n", b"+PONG\r\n+PONG\r\n"])
async def test_a_server_that_breaks_the_protocol_is_left(garbage: bytes) -> None:
    """Garbage, or a reply that nobody asked for, ends the connection."""
    async with scripted_server(lambda _: garbage) as address, client_of(address) as client:
        with pytest.raises(UnavailableError, match="not the Redis protocol"):
            await client.execute("PING")


async def test_a_password_is_given_and_a_wrong_one_is_refused(own_server: EmbeddedValkey) -> None:
    """The URL's password opens; a wrong one is unavailable, with the server's reason."""
    await redis_command(own_server.url, "CONFIG", "SET", "requirepass", "hush hush")
    url = own_server.url
    async with client_of(f"{url}&password=hush%20hush") as client:
        assert await client.execute("PING") == b"PONG"
        async with client_of(f"{url}&password=wrong") as stranger:
            with pytest.raises(UnavailableError, match="WRONGPASS"):
                await stranger.execute("PING")
        async with client_of(url) as stranger:
            with pytest.raises(UnavailableError, match="NOAUTH"):
                await stranger.execute("PING")


async def test_a_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS a server of an unknown authority is no server; a known one is."""
    certificate, _, tls = certificate_for_loopback(tmp_path)

    def answer(data: bytes) -> bytes:
        return b"+PONG\r\n" * data.count(b"PING")

    async with scripted_server(answer, tls) as address:
        async with client_of(f"rediss://{address}") as wary:
            with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await wary.execute("PING")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with client_of(f"rediss://{address}") as trusting:
            assert await trusting.execute("PING") == b"PONG"


async def test_a_closed_client_refuses_and_has_nothing_in_flight(redis_url: str) -> None:
    """After close a call is refused; what was in flight has an unknown outcome."""
    async with client_of(redis_url) as client:
        await client.execute("PING")
        waiting: Awaitable[object] = asyncio.create_task(client.execute("BLPOP", "nothing", 0))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(UnknownOutcomeError):
            await waiting
        with pytest.raises(UnavailableError):
            await client.execute("PING")
