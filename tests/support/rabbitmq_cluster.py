"""A RabbitMQ cluster of the installed server, whose nodes a test kills, freezes and cuts off."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.eventually import eventually
from tests.support.processes import descendants
from tests.support.real_servers import servers

PAUSE_MINORITY = "pause_minority"
WHOLE_SECONDS = 120.0
"""A paused node looks every second whether it is in a majority, and then starts."""


class Cluster:
    """Nodes `a`, `b` and `c`, as far as they were started."""

    def __init__(self, nodes: str, handling: str = PAUSE_MINORITY) -> None:
        self.nodes = nodes
        self.urls: dict[str, str] = {}
        self.management_urls: dict[str, str] = {}
        self._handling = handling

    @property
    def url(self) -> str:
        """The address of all nodes, in order."""
        return self.url_of(self.nodes)

    def url_of(self, nodes: str) -> str:
        """Return one address of some nodes."""
        return f"amqp://guest:guest@{','.join(self.place(node) for node in nodes)}/"

    def place(self, node: str) -> str:
        """Return a node's host and port."""
        return self.urls[node].partition("@")[2].strip("/")

    @property
    def management_url(self) -> str:
        """The address of the management API of all nodes."""
        places = [self.management_urls[node].partition("@")[2] for node in self.nodes]
        return f"http://{','.join(places)}"

    async def up(self, *nodes: str) -> None:
        """Start nodes at the same time on the data that they have.

        If they wait for one that had paused and did not start again, that one is restarted.
        """
        try:
            await asyncio.gather(*[self._up(node) for node in nodes])
        except AssertionError:
            for other in self.urls.keys() - set(nodes):
                await self.kill(other)
            await asyncio.gather(*[self._up(node) for node in {*self.urls, *nodes}])

    async def find(self) -> None:
        """Find all nodes, which something else has started."""
        for node in self.nodes:
            await self._find(node)

    async def _up(self, node: str) -> None:
        await asyncio.to_thread(servers, "up", f"rabbitmq-{node}")
        await self._find(node)
        if self._handling != PAUSE_MINORITY:
            handling = f"application:set_env(rabbit, cluster_partition_handling, {self._handling})."
            await self.eval(node, handling)

    async def _find(self, node: str) -> None:
        lines = (await asyncio.to_thread(servers, "env", f"rabbitmq-{node}")).splitlines()
        self.urls[node], self.management_urls[node] = (line.split("'")[1] for line in lines)

    async def kill(self, *nodes: str) -> None:
        """End nodes without a word; the port mapper, which node `a` started, stays."""
        await asyncio.to_thread(servers, "kill", *[f"rabbitmq-{node}" for node in nodes])

    async def freeze(self, node: str) -> None:
        """Stop a node's processes where they are, their connections open."""
        await self._signal(node, signal.SIGSTOP)

    async def thaw(self, node: str) -> None:
        """Let it go on; after more than `net_ticktime` it is partitioned until it is restarted."""
        await self._signal(node, signal.SIGCONT)

    async def _signal(self, node: str, number: signal.Signals) -> None:
        pid = int(await asyncio.to_thread(servers, "pids", f"rabbitmq-{node}"))
        for one in (pid, *descendants(pid)):
            os.kill(one, number)

    async def isolate(self, node: str) -> None:
        """Cut a node off from the others, not from its clients: it has another secret for them.

        From all of them at once: RabbitMQ pauses more nodes than one if only some links are cut.
        """
        others = self._names(self.nodes.replace(node, ""))
        await self.eval(node, f"[erlang:set_cookie(Node, cut) || Node <- {others}].")
        await self.eval(node, f"[erlang:disconnect_node(Node) || Node <- {others}].")

    async def rejoin(self, node: str) -> None:
        """Let it reach the others again."""
        others = self._names(self.nodes.replace(node, ""))
        reset = f"[erlang:set_cookie(Node, erlang:get_cookie()) || Node <- {others}]"
        await self.eval(node, f"{reset}, [net_kernel:connect_node(Node) || Node <- {others}].")

    @staticmethod
    def _names(nodes: str) -> str:
        names = [f"'rabbitmq-{node}@localhost'" for node in nodes]
        return f"[{','.join(names)}]"

    async def is_whole(self) -> None:
        """Wait until every node runs and sees all others.

        One that had paused and does not start again is restarted.
        """
        everyone = self._names(self.nodes)
        seen = "length(rpc:call(Node, rabbit_nodes, all_running, []))"
        expression = f"[rabbit:is_booted(Node) andalso {seen} || Node <- {everyone}]."
        wanted = f"[{','.join([str(len(self.nodes))] * len(self.nodes))}]"

        async def attempt() -> None:
            assert (await self.eval(self.nodes[0], expression)).strip() == wanted

        try:
            await eventually(attempt, within_seconds=WHOLE_SECONDS)
        except AssertionError:
            for node in self.nodes:
                await self._restart_if_paused(node)
            await eventually(attempt, within_seconds=WHOLE_SECONDS)

    async def _restart_if_paused(self, node: str) -> None:
        if (await self.eval(node, "rabbit:is_booted().")).strip() != "true":
            await self.kill(node)
            await self._up(node)

    async def eval(self, node: str, expression: str) -> str:
        """Evaluate Erlang in a node."""
        return await self.run(node, "rabbitmqctl", "-q", "eval", expression)

    async def run(self, node: str, *command: str) -> str:
        """Run a tool of the server against a node; return what it prints."""
        return await asyncio.to_thread(servers, "run", f"rabbitmq-{node}", *command)

    async def leader(self, queue: str, seen_by: str = "") -> str:
        """Return the node that leads a queue."""
        return _letter((await self._listed(queue, "leader", seen_by)).strip())

    async def members(self, queue: str, seen_by: str = "", *, column: str = "members") -> str:
        """Return the nodes that hold a queue, or those of them that are `online`."""
        listed = await self._listed(queue, column, seen_by)
        return "".join(sorted(_letter(name) for name in listed.strip("[] ").split(", ")))

    async def _listed(self, queue: str, column: str, seen_by: str) -> str:
        listed = await self.run(
            *(seen_by or self.nodes[0], "rabbitmqctl", "-q"),
            *("list_queues", "--no-table-headers", "name", column),
        )
        rows = dict(line.split("\t", 1) for line in listed.splitlines())
        return rows[queue]


def _letter(name: str) -> str:
    return name.removeprefix("rabbitmq-").partition("@")[0]


@asynccontextmanager
async def running_cluster(
    nodes: str, *, handling: str = PAUSE_MINORITY, joined: str | None = None
) -> AsyncIterator[Cluster]:
    """Start an empty cluster of these nodes; remove it at the end.

    `joined`: those of them that are started and have joined by now; all of them, by default. With
    another handling of partitions than `PAUSE_MINORITY` a minority goes on answering.
    """
    names = [f"rabbitmq-{node}" for node in nodes]
    await asyncio.to_thread(servers, "wipe", *reversed(names))
    cluster = Cluster(nodes, handling)
    try:
        for node in nodes if joined is None else joined:  # the first one before those that join it
            await cluster.up(node)
        yield cluster
    finally:
        for name in reversed(names):  # the first one has the port mapper
            await asyncio.to_thread(servers, "wipe", name)
