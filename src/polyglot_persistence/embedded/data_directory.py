"""A directory that belongs to one process at a time."""

import os
import stat
from pathlib import Path

from polyglot_persistence.embedded.child import try_lock, wait_until
from polyglot_persistence.embedded.directory import Directory, is_writable_by_others, take_back
from polyglot_persistence.errors import ConfigurationError

OWNER_GONE_SECONDS = 1.0
"""How long an owner that was just killed may hold on: the kernel frees its memory first."""

_PID_BYTES = 20
_LOCK = "owner.lock"

_PRIVATE = 0o700
_SEARCHABLE = 0o711
"""Root's: servers, API and worker are other users, and each has directories of its own in it."""


class DataDirectory:
    """A directory, created when it is missing, and locked by at most one process.

    The lock is the kernel's (flock(2)): it ends with the process, however that ends. Root's is
    root's alone to write, from the moment it is locked: one `of_servers`, which earlier versions
    gave to the user `nobody`, is taken back, and another one refused.
    """

    def __init__(self, path: Path, *, of_servers: bool = False) -> None:
        self.path = path.absolute()
        self._of_servers = of_servers
        self._files: Directory | None = None
        self._lock: int | None = None

    @property
    def locked(self) -> bool:
        """Whether this process has taken the directory."""
        return self._lock is not None

    def files(self) -> Directory:
        """Return what is in it; once it is locked."""
        if self._files is None:
            raise RuntimeError(f"{self.path} has not been locked")
        return self._files

    async def lock(self) -> None:
        """Create the directory if need be, and take it; without effect if it is taken already.

        Raises:
            ConfigurationError: if another process has it, it cannot be created or written, others
                may write in it, or its path is not UTF-8.
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
            self._files = self._open()
            lock = self._files.open(_LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            self.unlock()
            raise ConfigurationError(
                f"cannot use the data directory {self.path}: {error.strerror}"
            ) from error
        except BaseException:
            self.unlock()
            raise
        try:
            await self._take(lock)
            os.pwrite(lock, f"{os.getpid():<{_PID_BYTES}}".encode(), 0)
        except BaseException:
            os.close(lock)
            self.unlock()
            raise
        self._lock = lock

    def _open(self) -> Directory:
        is_root = os.geteuid() == 0
        mode = _SEARCHABLE if is_root else _PRIVATE
        self.path.mkdir(mode=mode, parents=True, exist_ok=True)
        directory = Directory.at(self.path)
        try:
            if is_root:
                self._secure(directory)
        except BaseException:
            directory.close()
            raise
        return directory

    def _secure(self, directory: Directory) -> None:
        """Make sure that no other user can put anything into root's directory."""
        found = os.fstat(directory.descriptor)
        if self._of_servers:
            if (found.st_uid, stat.S_IMODE(found.st_mode)) != (os.geteuid(), _SEARCHABLE):
                take_back(directory, _SEARCHABLE)
        elif found.st_uid != os.geteuid():
            raise ConfigurationError(
                f"the data directory {self.path} belongs to user {found.st_uid}, and root would "
                f"run what that user puts there; start it as that user, or give it to root: "
                f"chown -R 0:0 {self.path}"
            )
        elif is_writable_by_others(found):
            raise ConfigurationError(
                f"others may write in the data directory {self.path}, which is root's; "
                f"take that away: chmod go-w {self.path}"
            )

    async def _take(self, lock: int) -> None:
        if not await wait_until(lambda: try_lock(lock), OWNER_GONE_SECONDS):
            owner = os.pread(lock, _PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
            raise ConfigurationError(
                f"the data directory {self.path} is in use by process {owner}; "
                "stop it, or choose another directory"
            )

    def unlock(self) -> None:
        """Give the directory free; without effect if it is not taken."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._files is not None:
            self._files.close()
            self._files = None
