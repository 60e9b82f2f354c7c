"""A directory that belongs to one process at a time."""

import fcntl
import os
from pathlib import Path

from polyglot_persistence.errors import ConfigurationError


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

    def lock(self) -> None:
        """Create the directory if need be, and take it; without effect if it is taken already.

        Raises:
            ConfigurationError: if another process has it, or it cannot be created or written.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(mode=self._mode, parents=True, exist_ok=True)
            lock = os.open(self.path / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"cannot use the data directory {self.path}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 20, 0).decode().strip() or "unknown"
            os.close(lock)
            raise ConfigurationError(
                f"the data directory {self.path} is in use by process {owner}; "
                "stop it, or choose another directory"
            ) from error
        os.pwrite(lock, f"{os.getpid():<20}".encode(), 0)
        self._lock = lock

    def unlock(self) -> None:
        """Give the directory free; without effect if it is not taken."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
