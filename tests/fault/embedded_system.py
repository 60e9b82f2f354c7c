"""The embedded deployment under fault: its servers are children of the harness."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.errors import ConfigurationError
from tests.fault import contents
from tests.fault.messages import FuzzedMessage, put_into_stream
from tests.fault.systems import StoreServer, System
from tests.support.processes import eventually

DISK_MEBIBYTES = {"cache": 256, "record": 1_536}


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
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)


class EmbeddedSystem(System):
    """API and two workers over the bundled servers, each on a small disk of its own (as root)."""

    deployment = "embedded"
    settle_seconds = 60.0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        for role, mebibytes in DISK_MEBIBYTES.items():
            path = directory / role
            path.mkdir()
            if _mount(path, mebibytes):
                self.disks[role] = path
        self.search_directory = directory / "search"
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

    @property
    def cache_url(self) -> str:
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

    async def start_stores(self) -> None:
        await asyncio.gather(*(store.up() for store in self.stores.values()))

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
        for path in self.disks.values():
            await asyncio.to_thread(_unmount, path)


def _mount(path: Path, mebibytes: int) -> bool:
    """Whether the directory is a small disk now; that needs root."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0711", "tmpfs", str(path)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


def _unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", path], check=True, timeout=30)
