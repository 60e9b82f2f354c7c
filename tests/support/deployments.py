"""The whole system in both of its deployments, with one face: started, stopped, killed.

Invariant: what a deployment was told is in its stores, which outlive its processes.
"""

import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from tests.support.addresses import ELASTICSEARCH, POSTGRES, RABBITMQ, REDIS, needs
from tests.support.api import Api
from tests.support.eventually import eventually
from tests.support.keys import ENVIRONMENT
from tests.support.processes import (
    PRODUCT_PYTHON,
    Process,
    free_port,
    hears,
    killed_together,
    started,
    up_command,
)
from tests.support.real_servers import empty_stores

READY_SECONDS = 90.0
WORKERS = 2
PROGRAM = (PRODUCT_PYTHON, "-m", "polyglot_persistence")

NEEDS_SERVERS = needs(POSTGRES, REDIS, RABBITMQ, ELASTICSEARCH)
"""Marks what runs `on_servers`."""


class Deployment(Api, ABC):
    """An API and its workers."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(free_port())
        self.environment = dict(environment or {})
        self.processes: list[Process] = []
        self._resources = ExitStack()

    @abstractmethod
    async def start(self) -> None:
        """Start it on whatever it left in its stores; return once it is ready."""

    @abstractmethod
    def command(self, *arguments: str) -> AbstractContextManager[Process]:
        """Run a command of an operator on its stores while the context lasts."""

    async def stop(self) -> None:
        """End it as an operator does; every process must say that all went well."""
        for process in self.processes:
            await eventually(partial(self._listens, process), within_seconds=READY_SECONDS)
            process.send(signal.SIGTERM)
        for process in self.processes:
            assert await process.ended() == 0, process.log()[-3000:]
        self.processes = []

    async def kill(self) -> None:
        """End all of its processes at one moment and without a word."""
        await killed_together(self.processes)
        self.processes = []

    def close(self) -> None:
        """Leave no process behind."""
        self._resources.close()

    async def _listens(self, process: Process) -> None:
        # The API is ready, but a worker may still be starting, and is ended by a signal then.
        assert process.code is not None or hears(process.pid, signal.SIGTERM)

    def _run(self, *command: str | Path, environment: Mapping[str, str] | None = None) -> Process:
        process = self._resources.enter_context(started(command, environment=environment))
        self.processes.append(process)
        return process


class Embedded(Deployment):
    """`polyglot up`: its servers are processes of its own, killed with it."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__({**ENVIRONMENT, **(environment or {})})
        self._data_dir = data_dir

    async def start(self) -> None:
        command = up_command(self._data_dir, self.port)
        await self._run(*command, environment=self.environment).printed("ready: ")

    def command(self, *arguments: str) -> AbstractContextManager[Process]:
        """Run it with the addresses that `polyglot up` left in its directory."""
        return started((*PROGRAM, "--stores-of", self._data_dir, *arguments))


class OnServers(Deployment):
    """One API process and several workers on the four real servers, which live on."""

    def __init__(
        self, stores: Mapping[str, str], environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.environment = {
            **stores,
            **ENVIRONMENT,
            **(environment or {}),
            "API_HOST": "127.0.0.1",
            "API_PORT": str(self.port),
        }

    async def start(self) -> None:
        self._run(*PROGRAM, "api", environment=self.environment)
        doors: list[Api] = [self]
        for _ in range(WORKERS):
            doors.append(Api(free_port()))
            variables = {**self.environment, "WORKER_PORT": str(doors[-1].port)}
            self._run(*PROGRAM, "worker", environment=variables)
        for door in doors:
            await eventually(
                partial(self._is_ready, door),
                within_seconds=READY_SECONDS,
                retried=(OSError, AssertionError),
            )

    def command(self, *arguments: str) -> AbstractContextManager[Process]:
        """Run it with the settings of the deployment."""
        return started((*PROGRAM, *arguments), environment=self.environment)

    async def _is_ready(self, door: Api) -> None:
        answer = await door.request("GET", "/health/ready")
        assert answer.json["mode"] == "normal", answer.json


@asynccontextmanager
async def embedded(data_dir: Path) -> AsyncIterator[Deployment]:
    """Give the embedded deployment, not yet started."""
    deployment = Embedded(data_dir)
    try:
        yield deployment
    finally:
        deployment.close()


@asynccontextmanager
async def on_servers() -> AsyncIterator[OnServers]:
    """Give the deployment on the real servers, not yet started."""
    async with empty_stores() as stores:
        deployment = OnServers(stores)
        try:
            yield deployment
        finally:
            deployment.close()
