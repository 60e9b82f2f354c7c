"""The production deployment under fault: on the real servers that `scripts/servers` started."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from elasticsearch import AsyncElasticsearch

from polyglot_persistence.bootstrap.stores import SEARCH_ALIAS
from polyglot_persistence.config.addresses.elasticsearch import node_urls
from polyglot_persistence.ports.queue import QUEUE_NAME
from tests.fault import contents
from tests.fault.disks import Disk, move_back, move_onto_disk
from tests.fault.messages import FuzzedMessage, put_into_rabbitmq
from tests.fault.systems import StoreServer, System
from tests.support.patience import patiently
from tests.support.queues import delete_queue
from tests.support.real_servers import delete_indexes, servers

ROLES = {"cache": "redis", "queue": "rabbitmq", "record": "postgres", "search": "elasticsearch"}
SETTINGS = {
    "cache": "REDIS_ADDR",
    "queue": "RABBITMQ_URL",
    "record": "POSTGRES_DSN",
    "search": "ELASTICSEARCH_URL",
}
DISK_MEBIBYTES = 4_096
"""Room for what the server of a developer may have; only what is used takes any."""


class Installed(StoreServer):
    """A server that `scripts/servers` started."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def pid(self) -> int | None:
        printed = await asyncio.to_thread(servers, "pids", self.name)
        return int(printed) if printed.strip() else None

    async def up(self) -> None:
        try:
            await asyncio.to_thread(servers, "up", self.name)
        except AssertionError:  # a busy machine: it is still starting
            await asyncio.to_thread(servers, "up", self.name)

    async def kill(self) -> None:
        await asyncio.to_thread(servers, "kill", self.name)

    async def down(self) -> None:
        """End it in order."""
        await asyncio.to_thread(servers, "down", self.name)

    async def data(self) -> Path:
        """Return the directory of its data."""
        return Path((await asyncio.to_thread(servers, "data", self.name)).strip())

    async def empty(self) -> None:
        await asyncio.to_thread(servers, "empty", self.name)


class ServersSystem(System):
    """API and two workers over the four servers."""

    deployment = "servers"
    settle_seconds = 120.0
    disk_roles = tuple(ROLES)

    def __init__(self, directory: Path, addresses: Mapping[str, str]) -> None:
        super().__init__(directory)
        self._addresses = dict(addresses)
        self.installed = {role: Installed(name) for role, name in ROLES.items()}
        self.stores = dict(self.installed)
        nodes = node_urls(self._addresses["ELASTICSEARCH_URL"])
        self._elasticsearch = AsyncElasticsearch(
            nodes, request_timeout=15, max_retries=len(nodes) - 1
        )

    def addresses(self) -> dict[str, str]:
        return self._addresses

    async def cache_url(self) -> str:
        return self._addresses["REDIS_ADDR"]

    def dsn(self) -> str:
        return self._addresses["POSTGRES_DSN"]

    async def delete_index(self) -> None:
        await patiently(partial(delete_indexes, self._addresses["ELASTICSEARCH_URL"]))

    async def delete_queue(self) -> None:
        """Delete the queue while everything runs."""
        await delete_queue(self._addresses["RABBITMQ_URL"], QUEUE_NAME)

    async def mend(self, role: str) -> None:
        """Delete a queue whose log is damaged, as RabbitMQ 3.10 leaves it: no start mends it."""
        if role == "queue":
            tool = ("rabbitmqctl", "--quiet", "list_queues", "name", "state")
            listed = await patiently(partial(asyncio.to_thread, servers, "run", "rabbitmq", *tool))
            if [QUEUE_NAME, "down"] in map(str.split, listed.splitlines()):
                await self.delete_queue()

    async def target(self, role: str) -> tuple[str, int] | Path:
        parts = urlsplit(self._addresses[SETTINGS[role]])
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def through(self, role: str, port: int) -> dict[str, str]:
        parts = urlsplit(self._addresses[SETTINGS[role]])
        user = parts.netloc.rpartition("@")[0]
        netloc = f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"
        return {SETTINGS[role]: urlunsplit(parts._replace(netloc=netloc))}

    @asynccontextmanager
    async def on_small_disks(self, *roles: str) -> AsyncIterator[Mapping[str, Disk]]:
        stores = [self.installed[role] for role in roles]
        disks: dict[str, Disk] = {}
        try:
            await asyncio.gather(*(store.down() for store in stores))
            for role, store in zip(roles, stores, strict=True):
                directory = await store.data()
                disks[role] = await asyncio.to_thread(move_onto_disk, directory, DISK_MEBIBYTES)
            await asyncio.gather(*(store.up() for store in stores))
            yield disks
        finally:
            await asyncio.gather(*(store.down() for store in stores))
            for disk in disks.values():
                await asyncio.to_thread(move_back, disk)
            await asyncio.gather(*(store.up() for store in stores))

    async def queued(self) -> int:
        return await contents.queue_ready(self._addresses["RABBITMQ_URL"], QUEUE_NAME)

    async def put(self, messages: Sequence[FuzzedMessage]) -> None:
        await put_into_rabbitmq(self._addresses["RABBITMQ_URL"], messages)

    async def searchable(self) -> int:
        return await contents.elasticsearch_count(self._elasticsearch, SEARCH_ALIAS)

    async def documents(self) -> list[tuple[str, str, int]]:
        return await contents.elasticsearch_documents(self._elasticsearch, SEARCH_ALIAS)

    async def aclose(self) -> None:
        self.abandon_members()
        await self._elasticsearch.close()
        for store in self.stores.values():
            await store.up()  # whoever comes next expects all of them
