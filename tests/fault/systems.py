"""The whole system under fault, in either deployment, with one face.

Invariant: whatever was started here is gone after `aclose`; the harness may be killed itself, and
its children end with it.
"""

import asyncio
import signal
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.fault import contents
from tests.fault.checkers import Held
from tests.fault.disks import Disk, available
from tests.fault.members import Member
from tests.fault.messages import FuzzedMessage
from tests.fault.network import Link
from tests.support.clients import Connection
from tests.support.eventually import WAIT_SECONDS, eventually, eventually_true
from tests.support.keys import ENVIRONMENT
from tests.support.patience import NOT_WELL
from tests.support.processes import alive, descendants, free_port, freeze, send

DIRTY_ORDERS_MAX = 20_000
START_SECONDS = 180.0
TRACEBACK_CHARACTERS = 4_000

QUICK: Mapping[str, str] = {
    "DIRTY_ORDERS_MAX": str(DIRTY_ORDERS_MAX),
    "SWEEP_AGE_SECONDS": "2",
    "SWEEP_INTERVAL_SECONDS": "0.5",
    "OUTBOX_AGE_SECONDS": "2",
    "OUTBOX_INTERVAL_SECONDS": "0.5",
    "DELIVERY_HOLD_SECONDS_MAX": "5",
    "WARM_QUIET_SECONDS": "5",
    "IMPORT_WAIT_SECONDS": "2",
    "INDEX_TIMEOUT_SECONDS": "10",
    "LOG_FORMAT": "json",
}
"""Nothing is promised of the defaults that does not hold with less patience as well."""


class StoreServer(ABC):
    """One server that a store is on."""

    @abstractmethod
    async def pid(self) -> int | None:
        """Return the process that started its others, if it runs."""

    @abstractmethod
    async def up(self) -> None:
        """Start it on the data that it has, if it does not run; return when it answers."""

    @abstractmethod
    async def kill(self) -> None:
        """End it without a word."""

    @abstractmethod
    async def empty(self) -> None:
        """Delete its data; it must not run."""

    async def pids(self) -> Sequence[int]:
        """Return all its processes that run."""
        pid = await self.pid()
        return [] if pid is None else [pid, *descendants(pid)]

    async def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        pid = await self.pid()
        if number is signal.SIGSTOP and pid is not None:
            freeze(pid)
        else:
            send(await self.pids(), number)


class System(ABC):
    """API, worker and stores."""

    deployment: str
    stores: dict[str, StoreServer]
    """By role: cache, record, and queue and search where they are servers of their own."""
    settle_seconds: float
    disk_roles: Sequence[str]
    """The stores that can be on small disks (`on_small_disks`)."""
    orders_in_flight_max = 10_000
    """What may be accepted beyond the limit before an API sees that it is reached."""

    def __init__(self, directory: Path) -> None:
        self.settings: dict[str, str] = dict(QUICK)
        self.directory = directory
        self.has_small_disks = available(directory)
        self.port = free_port()
        self.clock_path = directory / "clock"
        self.clock_path.write_text("0")
        self.links: dict[str, Link] = {}
        self.api = Member("api", self._environment, directory / "api.log")
        self.workers = [
            Member("worker", self._environment, directory / f"worker{n}.log") for n in range(2)
        ]

    @property
    def members(self) -> Sequence[Member]:
        """All processes of the project's own."""
        return [self.api, *self.workers]

    @abstractmethod
    def addresses(self) -> dict[str, str]:
        """Return the settings that reach the stores."""

    @abstractmethod
    async def cache_url(self) -> str:
        """Where the cache is."""

    @abstractmethod
    async def delete_index(self) -> None:
        """Delete the search index while everything runs."""

    @abstractmethod
    async def target(self, role: str) -> tuple[str, int] | Path:
        """Return where a link to this store leads."""

    @abstractmethod
    def through(self, role: str, port: int) -> dict[str, str]:
        """Return the settings that reach this store through a link on that port."""

    async def start_stores(self) -> None:
        """Start all servers."""
        await asyncio.gather(*(store.up() for store in self.stores.values()))

    @abstractmethod
    def on_small_disks(self, *roles: str) -> AbstractAsyncContextManager[Mapping[str, Disk]]:
        """Give these stores' disks; they may be moved there and back, and be away for it."""

    @abstractmethod
    async def mend(self, role: str) -> None:
        """Do what is left to an operator after the disk of this store was full."""

    async def freeze(self) -> None:
        """Have every process of the stores and of the project's own stand still."""
        for member in self.members:
            member.send(signal.SIGSTOP)
        for store in self.stores.values():
            await store.send(signal.SIGSTOP)

    async def die(self) -> None:
        """End every process of the stores and of the project's own; none is started again."""
        self.abandon_members()
        for store in self.stores.values():
            await store.send(signal.SIGKILL)  # each process: one that is stopped ends by no other
            await store.kill()

    @abstractmethod
    async def queued(self) -> int:
        """Return how many messages wait in the queue."""

    @abstractmethod
    async def put(self, messages: Sequence[FuzzedMessage]) -> None:
        """Put messages into the queue as anybody could who reaches it."""

    @abstractmethod
    async def searchable(self) -> int:
        """Return how many orders a search can find."""

    @abstractmethod
    async def documents(self) -> list[tuple[str, str, int]]:
        """Return everything that a search can find."""

    async def dirty(self) -> int:
        """Return the size of the dirty set."""
        return await contents.dirty(await self.cache_url())

    @abstractmethod
    def dsn(self) -> str:
        """Return where the record is."""

    async def start(self) -> None:
        """Start everything on what the stores have; return once the API is ready."""
        await self.start_stores()
        for member in self.members:
            member.start()
        await self.ready()

    async def ready(self) -> None:
        """Return once the API finds all its stores well."""

        async def attempt() -> None:
            assert await self._is_ready()

        await eventually(attempt, within_seconds=START_SECONDS)

    async def restart_members(self, *, every: Mapping[str, str]) -> None:
        """Kill all processes of the project's own; what starts instead has these faults."""
        before = [member.pid for member in self.members]
        for member in self.members:
            member.every = dict(every)
            member.kill()
        # A dying API must not answer for the next one.
        await eventually_true(lambda: not any(pid is not None and alive(pid) for pid in before))
        await self.ready()

    async def unsettled(self) -> str:
        """Return what is left to do; empty if nothing is."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                dirty, queued = await self.dirty(), await self.queued()
                rows, outbox = await contents.unfinished(self.dsn())  # with all that was dirty
                left = {
                    "dirty": dirty,
                    "queued": queued,
                    "outbox": outbox,
                    "not searchable": rows - await self.searchable(),
                }
                if not any(left.values()):
                    return "" if await self._is_certain() else "the cache is cold"
        except NOT_WELL as error:
            return repr(error)
        return str({what: count for what, count in left.items() if count})

    async def held(self) -> Held:
        """Return what all stores hold."""
        held = Held()
        await contents.record(self.dsn(), held)
        await contents.cache(await self.cache_url(), [row.id for row in held.record], held)
        held.searchable = await self.documents()
        held.queued = await self.queued()
        return held

    @abstractmethod
    async def aclose(self) -> None:
        """Leave no process behind, and nothing of the stores."""

    def abandon_members(self) -> None:
        """Leave no process of the project's own behind."""
        for member in self.members:
            member.abandon()

    async def stop(self) -> list[int]:
        """End the project's processes in order; return their exit codes."""
        return [await member.stop() for member in self.members]

    def tracebacks(self) -> list[str]:
        """Return where a log shows a fault of the program."""
        found = []
        for member in self.members:
            text = member.log_path.read_text(errors="replace")
            found += [
                f"{member.log_path}: {trace[:TRACEBACK_CHARACTERS]}"
                for trace in text.split("Traceback (most recent call last)")[1:]
            ]
        return found

    def _environment(self) -> dict[str, str]:
        linked: dict[str, str] = {}
        for role, link in self.links.items():
            linked |= self.through(role, link.port)
        return {
            **ENVIRONMENT,
            **self.settings,
            **self.addresses(),
            **linked,
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.port),
            "FAULT_CLOCK": str(self.clock_path),
        }

    async def _is_ready(self) -> bool:
        try:
            with Connection(self.port) as connection:
                status, answer = await connection.request("GET", "/health/ready")
        except (OSError, EOFError):
            return False
        return status == 200 and all(store["up"] for store in answer["stores"].values())

    async def _is_certain(self) -> bool:
        """Whether an order that nobody ever placed is known not to be there."""
        with Connection(self.port) as connection:
            status, answer = await connection.request("GET", f"/api/orders/{uuid.uuid4()}")
        assert status in (404, 503), answer
        return status == 404
