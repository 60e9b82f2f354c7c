"""A directory that belongs to one process at a time."""

import os
from pathlib import Path

from polyglot_persistence.embedded.child import try_lock, wait_until
from polyglot_persistence.errors import ConfigurationError

OWNER_GONE_SECONDS = 1.0
"""How long an owner that was just killed may hold on: the kernel frees its memory first."""

_PID_BYTES = 20


class DataDirectory:
    """A directory, created with the mode when it is missing, and locked by at most one process.

    The lock is the kernel's (flock(2)): it ends with the process, however that ends.
    """

    def __init__(self, path: Path, mode: int = 0o700) -> None:
        self.path = path.absolute()
        self._mode = mode
        self._lock: int | None = None

    @property
    def locked(self) -> bool:
        """Whether this process has taken the directory."""
        return self._lock is not None

    async def lock(self) -> None:
        """Create the directory if need be, and take it; without effect if it is taken already.

        Raises:
            ConfigurationError: if another process has it, it cannot be created or written, or its
                path is not UTF-8.
        """
        if self._lock is not None:
            return
        try:
            str(self.path).encode()
        except UnicodeEncodeError:  # addresses of the stores are text
            raise ConfigurationError(
                f"the path of the data directory {os.fsencode(self.path)!r} is not UTF-8; "
                "choose another directory"
            ) from None
        try:
            self.path.mkdir(mode=self._mode, parents=True, exist_ok=True)
            lock = os.open(self.path / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"cannot use the data directory {self.path}: {error.strerror}"
            ) from error
        try:
            await self._take(lock)
            os.pwrite(lock, f"{os.getpid():<{_PID_BYTES}}".encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    async def _take(self, lock: int) -> None:
        if not await wait_until(lambda: try_lock(lock), OWNER_GONE_SECONDS):
            owner = os.pread(lock, _PID_BYTES, 0).decode().strip() or "unknown"
            raise ConfigurationError(
                f"the data directory {self.path} is in use by process {owner}; "
                "stop it, or choose another directory"
            )

    def unlock(self) -> None:
        """Give the directory free; without effect if it is not taken."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
