"""A bundled Valkey with a replica and three Sentinels, and what can happen to it.

Clients log in as a user of their own. So a primary can be cut off from its Sentinels and its
replica while its clients still reach it: as when a network fails in part.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import hiredis

from polyglot_persistence.embedded.valkey import _binary
from tests.support.eventually import eventually
from tests.support.own_valkey import OwnValkey
from tests.support.patience import NOT_WELL
from tests.support.processes import free_port
from tests.support.servers import redis_value, running, short_directory

NAME = "polyglot"
DOWN_AFTER_MS = 2_000
"""A busy machine stalls for more than one second."""
ELECTED_SECONDS = 60.0
"""Above the three seconds of an idle machine."""

_APP = ("app", "secret")
"""User and password of the clients."""


class Sentinel:
    """A Sentinel that is killed and started as the test likes; it keeps what it learned."""

    def __init__(self, directory: Path, *, quorum: int = 2) -> None:
        self._directory = directory
        self._quorum = quorum
        self.port = free_port()
        self.lines: list[str] = []
        """Of its first configuration."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self, primary: OwnValkey) -> None:
        """Start it; at first it knows this primary."""
        self._directory.mkdir(exist_ok=True)
        configuration = self._directory / "sentinel.conf"
        if not configuration.exists():
            configuration.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self._directory}\n"
                f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {self._quorum}\n"
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {NAME} 6000\n"
                + "".join(f"{line}\n" for line in self.lines)
            )
        self._process = await asyncio.create_subprocess_exec(
            _binary(),
            configuration,
            "--sentinel",
            stdout=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        """End it without a word."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def say(self, *words: str) -> Any:
        """Have it do a command of SENTINEL; return the reply."""
        return await redis_value(self.url, "SENTINEL", *words)


class RedisHa:
    """Two servers, of which one is the primary, and their Sentinels."""

    def __init__(self, servers: Sequence[OwnValkey], sentinels: Sequence[Sentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The address for the product."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{':'.join(_APP)}@{places}/{NAME}/0"

    async def start(self) -> None:
        """Return once all Sentinels know the replica and each other."""
        primary, replica = self.servers
        await replica.follow(primary.port)
        for sentinel in self.sentinels:
            await sentinel.start(primary)
        await self.whole()

    async def primary(self) -> OwnValkey:
        """Return the server that most Sentinels name."""
        ports = []
        for sentinel in self.sentinels:
            with suppress(*NOT_WELL):
                ports.append(int((await sentinel.say("GET-MASTER-ADDR-BY-NAME", NAME))[1]))
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    async def replica(self) -> OwnValkey:
        """Return the other server."""
        primary = await self.primary()
        return next(server for server in self.servers if server is not primary)

    async def whole(self) -> None:
        """Return once the replica is in sync and every Sentinel that runs could promote it."""

        async def attempt() -> None:
            primary, replica = await self.primary(), await self.replica()
            assert (await primary.say("ROLE"))[0] == b"master"
            assert b"master_link_status:up" in await replica.say("INFO", "replication")
            for sentinel in self.sentinels:
                flat = await sentinel.say("REPLICAS", NAME)
                facts = [dict(zip(one[::2], one[1::2], strict=True)) for one in flat]
                assert [one[b"flags"] for one in facts] == [b"slave"], facts
                assert [one[b"master-link-status"] for one in facts] == [b"ok"], facts
                await sentinel.say("CKQUORUM", NAME)
                flat = await sentinel.say("MASTER", NAME)
                known = dict(zip(flat[::2], flat[1::2], strict=True))
                assert int(known[b"num-other-sentinels"]) == len(self.sentinels) - 1

        await eventually(attempt, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)

    async def promoted(self, former: OwnValkey) -> OwnValkey:
        """Return the primary once it is another one, and every Sentinel that answers knows it."""

        async def attempt() -> OwnValkey:
            primary = await self.primary()
            assert primary is not former
            assert (await primary.say("ROLE"))[0] == b"master"
            return primary

        return await eventually(attempt, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)

    async def switch_over(self) -> OwnValkey:
        """Exchange primary and replica, as for maintenance; return the new primary."""
        former = await self.primary()

        async def attempt() -> None:
            if await self.primary() is former:  # else it is done, or a busy machine aborted it
                with suppress(hiredis.ReplyError):  # it is under way
                    await self.sentinels[-1].say("FAILOVER", NAME)
            assert await self.primary() is not former

        await eventually(attempt, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)
        return await self.promoted(former)

    async def cut_off_replica(self) -> None:
        """Let nothing more reach the replica, which can be promoted for some ten seconds."""
        primary, replica = await self.primary(), await self.replica()
        await replica.say("CONFIG", "SET", "masteruser", "nobody", "masterauth", "nothing")
        await primary.say("CLIENT", "KILL", "TYPE", "replica")

        async def attempt() -> None:
            assert b"master_link_status:down" in await replica.say("INFO", "replication")

        await eventually(attempt)

    async def let_replicate(self) -> None:
        """End that."""
        for server in self.servers:
            with suppress(*NOT_WELL):
                await server.say("CONFIG", "SET", "masteruser", "", "masterauth", "")

    async def isolate(self) -> OwnValkey:
        """Cut the primary off from Sentinels and replica, while clients reach it; return it."""
        primary = await self.primary()
        await as_app(primary, "ACL", "SETUSER", "default", "off")
        await as_app(primary, "CLIENT", "KILL", "USER", "default")
        return primary

    async def reconnect(self, server: OwnValkey) -> None:
        """Let Sentinels and replica reach a server again."""
        await as_app(server, "ACL", "SETUSER", "default", "on")

    async def freeze(self) -> OwnValkey:
        """Have the primary stand still; return it."""
        primary = await self.primary()
        send(primary, signal.SIGSTOP)
        return primary


def send(server: OwnValkey, number: signal.Signals) -> None:
    """Send a signal to a server that runs."""
    assert server.pid is not None
    os.kill(server.pid, number)


async def as_app(server: OwnValkey, *words: str) -> Any:
    """Have a server do a command for the clients' user; return the reply."""
    return await redis_value(f"redis://{':'.join(_APP)}@127.0.0.1:{server.port}/0", *words)


@asynccontextmanager
async def redis_ha() -> AsyncIterator[RedisHa]:
    """Start it; stop it at the end."""
    async with AsyncExitStack() as resources:
        directory = resources.enter_context(short_directory())
        servers = []
        for name in ("a", "b"):
            server = OwnValkey(directory / name)
            server.lines.append(f"user {_APP[0]} on >{_APP[1]} ~* &* +@all")
            await resources.enter_async_context(running(server))
            servers.append(server)
        sentinels = [Sentinel(directory / f"sentinel-{n}") for n in range(3)]
        for sentinel in sentinels:
            resources.push_async_callback(sentinel.kill)
        topology = RedisHa(servers, sentinels)
        resources.callback(_go_on, servers)
        await topology.start()
        yield topology


def _go_on(servers: Sequence[OwnValkey]) -> None:
    for server in servers:
        if server.pid is not None:
            send(server, signal.SIGCONT)


async def primary_url(url: str) -> str:
    """Return the primary's own URL, if the address is one of Sentinels; else the address."""
    if "+sentinel://" not in url:
        return url
    login, _, rest = url.partition("://")[2].partition("@")
    place = rest.split("/", maxsplit=1)[0].split(",", maxsplit=1)[0]
    host, port = await redis_value(f"redis://{place}", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
    return f"redis://{login}@{host.decode()}:{port.decode()}/0"
