"""The embedded deployment under fault: its servers are children of the harness."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import DATA, EmbeddedValkey
from polyglot_persistence.errors import ConfigurationError
from tests.fault import contents
from tests.fault.disks import Disk
from tests.fault.messages import FuzzedMessage, put_into_stream
from tests.fault.systems import StoreServer, System
from tests.support.processes import eventually

DISK_MEBIBYTES = {"cache": 256, "record": 1_536, "search": 512}


class Bundled(StoreServer):
    """A server of the embedded deployment, a child of the harness."""

    def __init__(self, server: EmbeddedPostgres | EmbeddedValkey, directory: Path) -> None:
        self.server = server
        self._directory = directory

    async def pid(self) -> int | None:
        return self.server.pid

    async def up(self) -> None:
        await self.server.start()

    async def kill(self) -> None:
        pid = self.server.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not self.server.running)

    async def empty(self) -> None:
        shutil.rmtree(self._directory / DATA / "appendonlydir", ignore_errors=True)


class EmbeddedSystem(System):
    """API and two workers over the bundled servers, each on a small disk of its own (as root)."""

    deployment = "embedded"
    settle_seconds = 60.0
    disk_roles = tuple(DISK_MEBIBYTES)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.disks: dict[str, Disk] = {}
        for role, mebibytes in DISK_MEBIBYTES.items():
            (directory / role).mkdir()
            if self.has_small_disks:
                self.disks[role] = Disk(directory / role, mebibytes)
        self.search_directory = directory / "search" / "tantivy"
        self.valkey = EmbeddedValkey(directory / "cache" / "valkey")
        self.postgres = EmbeddedPostgres(directory / "record" / "postgres")
        self.stores = {
            "cache": Bundled(self.valkey, directory / "cache" / "valkey"),
            "record": Bundled(self.postgres, directory / "record" / "postgres"),
        }

    def addresses(self) -> dict[str, str]:
        return {
            "POSTGRES_DSN": self.postgres.dsn,
            "REDIS_ADDR": self.valkey.url,
            "RABBITMQ_URL": self.valkey.url,
            "ELASTICSEARCH_URL": f"tantivy://{quote(str(self.search_directory))}",
        }

    async def cache_url(self) -> str:
        return self.valkey.url

    async def delete_index(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.search_directory, ignore_errors=True)

    async def target(self, role: str) -> tuple[str, int] | Path:
        if role == "cache":
            return self.valkey.socket_path
        query = dict(part.split("=", 1) for part in urlsplit(self.postgres.dsn).query.split("&"))
        return Path(unquote(query["host"])) / f".s.PGSQL.{query['port']}"

    def through(self, role: str, port: int) -> dict[str, str]:
        if role == "cache":
            url = f"redis://127.0.0.1:{port}/0"
            return {"REDIS_ADDR": url, "RABBITMQ_URL": url}
        parts = urlsplit(self.postgres.dsn)
        user = parts.netloc.rpartition("@")[0]
        return {"POSTGRES_DSN": f"postgresql://{user}@127.0.0.1:{port}{parts.path}"}

    async def die(self) -> None:
        await super().die()
        for server in (self.valkey, self.postgres):
            await server.stop()  # it has its directory open, in whose place another may come

    @asynccontextmanager
    async def on_small_disks(self, *roles: str) -> AsyncIterator[Mapping[str, Disk]]:
        yield {role: self.disks[role] for role in roles}

    async def mend(self, role: str) -> None:
        """Do nothing: all are well again by themselves."""

    async def queued(self) -> int:
        return await contents.stream_length(self.valkey.url)

    async def put(self, messages: Sequence[FuzzedMessage]) -> None:
        await put_into_stream(self.valkey.url, messages)

    async def searchable(self) -> int:
        return await contents.tantivy_count(self.search_directory)

    async def documents(self) -> list[tuple[str, str, int]]:
        return await contents.tantivy_documents(self.search_directory)

    def dsn(self) -> str:
        return self.postgres.dsn

    async def aclose(self) -> None:
        self.abandon_members()
        for store in self.stores.values():
            await store.send(signal.SIGCONT)
        for server in (self.valkey, self.postgres):
            with contextlib.suppress(ConfigurationError):
                await server.stop()
        for disk in self.disks.values():
            await asyncio.to_thread(disk.unmount)
