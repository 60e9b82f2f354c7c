"""An Elasticsearch cluster of three nodes, which a test kills and freezes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from elasticsearch import AsyncElasticsearch

from tests.support.eventually import eventually
from tests.support.patience import NOT_WELL
from tests.support.real_servers import servers

NODES = "abc"
GREEN_SECONDS = 240.0
"""A node that was killed is started by then, on a busy machine too."""


class Cluster:
    """Nodes `a`, `b` and `c`."""

    def __init__(self) -> None:
        self.urls: dict[str, str] = {}

    @property
    def url(self) -> str:
        """One address of all nodes, in order."""
        return self.url_of(NODES)

    def url_of(self, nodes: str) -> str:
        """Return one address of some nodes."""
        return f"http://{','.join(self.place(node) for node in nodes)}"

    def place(self, node: str) -> str:
        """Return a node's host and port."""
        return self.urls[node].removeprefix("http://")

    async def up(self, *nodes: str) -> None:
        """Start nodes at the same time on the data that they have."""
        await asyncio.gather(
            *[asyncio.to_thread(servers, "up", f"elasticsearch-{node}") for node in nodes]
        )

    async def find(self) -> None:
        """Learn the addresses of the nodes, which run."""
        for node in NODES:
            line = await asyncio.to_thread(servers, "env", f"elasticsearch-{node}")
            self.urls[node] = line.split("'")[1]

    async def kill(self, node: str) -> None:
        """End a node without a word."""
        await asyncio.to_thread(servers, "kill", f"elasticsearch-{node}")

    async def freeze(self, node: str) -> None:
        """Stop a node where it is, its connections open."""
        os.kill(await self._pid(node), signal.SIGSTOP)

    async def thaw(self, node: str) -> None:
        """Let it go on."""
        os.kill(await self._pid(node), signal.SIGCONT)

    async def _pid(self, node: str) -> int:
        return int(await asyncio.to_thread(servers, "pids", f"elasticsearch-{node}"))

    async def holders(self, alias: str, *, primary: bool) -> str:
        """Return the nodes with the primaries, or the other copies, of what is behind an alias."""
        async with self.client() as client:
            state = await client.cluster.state(index=alias, metric="routing_table,nodes")
        nodes = state["nodes"]
        names = {
            nodes[shard["node"]]["name"]
            for index in state["routing_table"]["indices"].values()
            for copies in index["shards"].values()
            for shard in copies
            if shard["primary"] == primary and shard["state"] == "STARTED"
        }
        return "".join(node for node in NODES if f"dev-{self.place(node).split(':')[1]}" in names)

    async def has_status(self, alias: str, status: str) -> None:
        """Wait until what is behind an alias is green, yellow or red."""

        async def attempt() -> None:
            async with self.client() as client:
                health = await client.cluster.health(index=alias, timeout="1s")
            assert (health["status"], health["initializing_shards"]) == (status, 0)

        await eventually(attempt, within_seconds=GREEN_SECONDS, retried=NOT_WELL)

    def client(self) -> AsyncElasticsearch:
        """Return a client of the test's own."""
        return AsyncElasticsearch(
            [*self.urls.values()], request_timeout=10, max_retries=5, retry_on_timeout=True
        )


@asynccontextmanager
async def running_cluster() -> AsyncIterator[Cluster]:
    """Start the cluster, or use it if it runs: a start takes a minute and more."""
    status = await asyncio.to_thread(_status)
    cluster = Cluster()
    try:
        await asyncio.to_thread(servers, "up", "elasticsearch-3")
        await cluster.find()
        yield cluster
    finally:
        if status.count("answers") < len(NODES):
            await asyncio.to_thread(servers, "wipe", "elasticsearch-3")


def _status() -> str:
    try:
        return servers("status", "elasticsearch-3")
    except AssertionError:  # some node was started and has ended
        return ""
