"""A RabbitMQ cluster of the installed server, whose nodes a test kills and starts again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.real_servers import servers


class Cluster:
    """Nodes `a`, `b` and `c`, as far as they were started; a queue has a replica on each."""

    def __init__(self, nodes: str) -> None:
        self.nodes = nodes
        self.urls: dict[str, str] = {}

    async def up(self, node: str) -> None:
        """Start a node on the data that it has."""
        await asyncio.to_thread(servers, "up", f"rabbitmq-{node}")
        [line] = (await asyncio.to_thread(servers, "env", f"rabbitmq-{node}")).splitlines()
        self.urls[node] = line.split("'")[1]

    async def kill(self, node: str) -> None:
        """End it without a word; the port mapper, which node `a` started, stays."""
        await asyncio.to_thread(servers, "kill", f"rabbitmq-{node}")

    async def leader(self, queue: str) -> str:
        """Return the node that leads a queue."""
        listed = await asyncio.to_thread(
            servers,
            *("run", f"rabbitmq-{self.nodes[0]}", "rabbitmqctl", "-q"),
            *("list_queues", "--no-table-headers", "name", "leader"),
        )
        leaders = dict(line.split() for line in listed.splitlines())
        return leaders[queue].removeprefix("rabbitmq-").partition("@")[0]


@asynccontextmanager
async def running_cluster(nodes: str) -> AsyncIterator[Cluster]:
    """Start an empty cluster of these nodes; remove it at the end."""
    names = [f"rabbitmq-{node}" for node in nodes]
    await asyncio.to_thread(servers, "wipe", *reversed(names))
    cluster = Cluster(nodes)
    try:
        for node in nodes:  # the first one before those that join it
            await cluster.up(node)
        yield cluster
    finally:
        for name in reversed(names):  # the first one has the port mapper
            await asyncio.to_thread(servers, "wipe", name)
