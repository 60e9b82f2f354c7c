"""Stores of several nodes, as far as the faults of a failover need to know them.

What elects a new leader by itself is waited for; where an operator has to promote, `promote` runs
the command of docs/ops.md.
"""

import asyncio
import contextlib
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import asyncpg

from polyglot_persistence.bootstrap.stores import SEARCH_ALIAS
from polyglot_persistence.ports.queue import QUEUE_NAME
from tests.fault.servers_system import Installed
from tests.support import elasticsearch_cluster, rabbitmq_cluster
from tests.support.eventually import eventually
from tests.support.patience import NOT_WELL
from tests.support.real_servers import servers
from tests.support.servers import redis_done, redis_value

ELECTED_SECONDS = 180.0
"""Elasticsearch removes a node that hangs after 30 s, on a busy machine after a minute or two."""
JOINED_SECONDS = 180.0

LOGIN = "app:secret@"
"""The login of the product at a Redis with Sentinels, which use another one."""
ANSWER_SECONDS = 3.0
"""For a question to a node that may stand still."""


class Topology(ABC):
    """One store on several nodes, all of them up."""

    group: ClassVar[str]
    """Its name for `scripts/servers`."""
    role: ClassVar[str]
    """Which store it is."""
    members: ClassVar[Sequence[str]]
    """Its nodes; each can lead."""
    first: ClassVar[str]
    """The node whose address comes first in the product's setting."""

    def __init__(self) -> None:
        self.nodes = {name: Installed(name) for name in self.members}
        self.settings: dict[str, str] = {}
        """The settings of the product that reach the topology as a whole."""
        self.addresses: dict[str, str] = {}
        """Of each node, which may be away later."""

    async def start(self) -> None:
        """Start it without any data."""
        await asyncio.to_thread(servers, "wipe", self.group)
        await asyncio.to_thread(servers, "up", self.group)
        self.settings = await _settings(self.group)
        for name in self.nodes:
            self.addresses[name] = next(iter((await _settings(name)).values()))

    async def wipe(self) -> None:
        """Remove it."""
        for node in self.nodes.values():
            await node.send(signal.SIGCONT)
        await asyncio.to_thread(servers, "wipe", self.group)

    @abstractmethod
    async def leader(self) -> str:
        """Return the node that takes the writes."""

    @abstractmethod
    async def is_whole(self) -> None:
        """Raise one of `NOT_WELL` unless every node serves or follows."""

    async def whole(self) -> None:
        """Return once every node serves or follows."""
        await eventually(self.is_whole, within_seconds=JOINED_SECONDS, retried=NOT_WELL)

    async def promote(self, lost: str) -> str:
        """Return the node that leads instead of a lost one."""

        async def attempt() -> str:
            leader = await self.leader()
            assert leader != lost, f"{lost} still leads"
            return leader

        return await eventually(attempt, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)

    async def stop(self, node: str) -> None:
        """Stop a node in order."""
        await self.nodes[node].down()

    async def rejoin(self, lost: str) -> None:
        """Start a lost node again, as one that follows; return once it does."""
        await self.nodes[lost].up()
        await self.whole()


class RedisHa(Topology):
    """A primary with a replica, and three Sentinels that promote it."""

    group = "redis-ha"
    role = "cache"
    members = ("redis-a", "redis-b")
    first = "redis-sentinel-a"
    sentinels = ("redis-sentinel-a", "redis-sentinel-b", "redis-sentinel-c")
    _NAME = "polyglot"

    def __init__(self) -> None:
        super().__init__()
        self.nodes |= {name: Installed(name) for name in self.sentinels}

    def url(self, node: str, login: str = "") -> str:
        """Return where a node is."""
        return f"redis://{login}{self.addresses[node]}"

    async def leader(self) -> str:
        places = []
        for sentinel in self.sentinels:
            with contextlib.suppress(*NOT_WELL):
                found = await redis_value(
                    self.url(sentinel), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._NAME
                )
                places.append(b":".join(found).decode())
        place = max(places, key=places.count)
        for node in self.members:
            if self.url(node).endswith(f"/{place}"):
                return node
        raise AssertionError(f"{place} is none of {self.members}")

    async def is_whole(self) -> None:
        leader = await self.leader()
        for node in self.members:
            info = await redis_value(self.url(node), "INFO", "replication")
            wanted = b"role:master" if node == leader else b"master_link_status:up"
            assert wanted in info, f"{node} is not yet {wanted.decode()}"

    async def cut_off(self) -> None:
        """Let the replica receive nothing more: it logs in as nobody."""
        leader = await self.leader()
        [replica] = [node for node in self.members if node != leader]
        wrong = ("masteruser", "nobody", "masterauth", "nothing")
        await redis_value(self.url(replica), "CONFIG", "SET", *wrong)
        await redis_value(self.url(leader), "CLIENT", "KILL", "TYPE", "replica")

    async def isolate(self, node: str) -> None:
        """Cut a primary off from Sentinels and replica, while the product reaches it."""
        await redis_value(self.url(node, LOGIN), "ACL", "SETUSER", "default", "off")
        await redis_value(self.url(node, LOGIN), "CLIENT", "KILL", "USER", "default")

    async def rejoin(self, lost: str) -> None:
        with contextlib.suppress(*NOT_WELL):  # it is not up
            await redis_value(self.url(lost, LOGIN), "ACL", "SETUSER", "default", "on")
        await self.nodes[lost].up()
        right = ("masteruser", "", "masterauth", "")
        for node in self.members:
            await redis_done(self.url(node, LOGIN), "CONFIG", "SET", *right)
        await self.whole()

    async def switch_over(self, leader: str) -> None:
        """Have the Sentinels exchange the two; an attempt that they give up is repeated."""

        async def attempt() -> None:
            if await self.leader() == leader:
                await redis_value(self.url(self.sentinels[-1]), "SENTINEL", "FAILOVER", self._NAME)
                raise AssertionError(f"{leader} still leads")

        await eventually(attempt, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)


class RabbitMQ3(Topology):
    """Three nodes of a cluster, each with a member of the queue."""

    group = "rabbitmq-3"
    role = "queue"
    members = ("rabbitmq-a", "rabbitmq-b", "rabbitmq-c")
    first = "rabbitmq-a"

    def __init__(self) -> None:
        super().__init__()
        self.cluster = rabbitmq_cluster.Cluster("abc")

    async def start(self) -> None:
        await super().start()
        await self.cluster.find()

    async def leader(self) -> str:
        return f"rabbitmq-{await self.cluster.leader(QUEUE_NAME)}"

    async def promote(self, lost: str) -> str:
        """Return at once: the members elect, which the next confirmed write shows."""
        return ""

    async def is_whole(self) -> None:
        await self.cluster.is_whole()
        online = await self.cluster.members(QUEUE_NAME, column="online")
        assert online == self.cluster.nodes, f"online: {online}"

    async def isolate(self, node: str) -> None:
        """Cut a node off from the others, while the product reaches it."""
        await self.cluster.isolate(node[-1])

    async def stop(self, node: str) -> None:
        """Stop it alone: the first node has the port mapper of all."""
        await self.cluster.run(node[-1], "rabbitmqctl", "-q", "stop")

        async def ended() -> None:
            assert await self.nodes[node].pid() is None, f"{node} has not ended"

        await eventually(ended, within_seconds=JOINED_SECONDS)

    async def rejoin(self, lost: str) -> None:
        """Start it anew: a node that stood still for long stays cut off from the others."""
        await self.nodes[lost].kill()
        await super().rejoin(lost)

    async def shrink(self, node: str) -> None:
        """Take the queue's member off a node."""
        command = ("rabbitmq-queues", "-q", "delete_member", QUEUE_NAME, f"{node}@localhost")
        await self.cluster.run(node[-1], *command)

    async def grow(self, node: str) -> None:
        """Give the queue a member on a node."""
        await self.cluster.run(
            node[-1], "rabbitmq-queues", "-q", "grow", f"{node}@localhost", "all"
        )


class PostgresHa(Topology):
    """A primary with an asynchronous standby, which an operator promotes."""

    group = "postgres-ha"
    role = "record"
    members = ("postgres-a", "postgres-b")
    first = "postgres-a"

    async def leader(self) -> str:
        """Return the primary; of two, the one that was promoted last."""
        timelines = {}
        for node in self.members:
            with contextlib.suppress(*NOT_WELL):
                timelines[node] = await self._value(
                    node, "SELECT pg_walfile_name(pg_current_wal_lsn())"
                )
        assert timelines, "neither is a primary"
        return max(timelines, key=lambda node: timelines[node][:8])

    async def timeline(self) -> str:
        """Return the timeline of the primary, as eight digits."""
        name = "SELECT pg_walfile_name(pg_current_wal_lsn())"
        return str(await self._value(await self.leader(), name))[:8]

    async def is_whole(self) -> None:
        following = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        assert await self._value(await self.leader(), following) == 1, "nothing follows"

    async def promote(self, lost: str) -> str:
        """Promote the other server, as docs/ops.md says."""
        other = self.other(lost)
        await asyncio.to_thread(servers, "run", other, "pg_ctl", "promote", "-D", "cluster")
        return other

    async def rejoin(self, lost: str) -> None:
        """Stop what is left of the former primary, and start it as a standby."""
        await self.nodes[lost].down()
        await super().rejoin(lost)

    async def cut_off(self) -> None:
        """Let the standby receive nothing more, until it is made anew."""
        standby = self.other(await self.leader())
        await self._value(standby, "ALTER SYSTEM SET primary_conninfo = ''")
        await self._value(standby, "SELECT pg_reload_conf()")

        async def ended() -> None:
            receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
            assert not await self._value(standby, receivers), "it still receives"

        await eventually(ended, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)

    async def wait_for_standby(self) -> None:
        """Have each commit wait until the standby has it; a server that is made anew does not."""
        leader = await self.leader()
        await self._value(leader, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self._value(leader, "SELECT pg_reload_conf()")

        async def attempt() -> None:
            synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            assert await self._value(leader, synchronous) == 1, "no commit waits"

        await eventually(attempt, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)

    async def persisted(self, node: str) -> int:
        """Return how many orders a server shows; a standby applies what it has received first."""

        async def applied() -> None:
            sql = "SELECT pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()"
            assert await self._value(node, sql) is not False, f"{node} has not applied all"

        await eventually(applied, within_seconds=ELECTED_SECONDS, retried=NOT_WELL)
        return int(await self._value(node, "SELECT count(*) FROM orders"))

    def other(self, node: str) -> str:
        """Return the other server of the two."""
        return next(one for one in self.members if one != node)

    async def _value(self, node: str, sql: str) -> Any:
        connection = await asyncpg.connect(self.addresses[node], timeout=ANSWER_SECONDS)
        try:
            return await connection.fetchval(sql, timeout=ANSWER_SECONDS)
        finally:
            connection.terminate()


class Elasticsearch3(Topology):
    """Three nodes, with the index on one of them and its copy on another."""

    group = "elasticsearch-3"
    role = "search"
    members = ("elasticsearch-a", "elasticsearch-b", "elasticsearch-c")
    first = "elasticsearch-a"

    def __init__(self) -> None:
        super().__init__()
        self.cluster = elasticsearch_cluster.Cluster()

    async def start(self) -> None:
        await super().start()
        await self.cluster.find()

    async def leader(self) -> str:
        """Return the node that holds the primary shard."""
        holders = await self.cluster.holders(SEARCH_ALIAS, primary=True)
        assert holders, "no node holds the index"
        return f"elasticsearch-{holders[0]}"

    async def is_whole(self) -> None:
        async with self.cluster.client() as client:
            health = await client.cluster.health()
            assert health["number_of_nodes"] == len(self.members), health
            assert health["status"] == "green", health


TOPOLOGIES: Mapping[str, type[Topology]] = {
    kind.group: kind for kind in (RedisHa, RabbitMQ3, PostgresHa, Elasticsearch3)
}


async def _settings(name: str) -> dict[str, str]:
    """Return what `scripts/servers` prints for a server or a group."""
    printed = await asyncio.to_thread(servers, "env", name)
    pairs = (line.removeprefix("export ").partition("=") for line in printed.splitlines())
    return {setting: value.strip("'") for setting, _, value in pairs}
