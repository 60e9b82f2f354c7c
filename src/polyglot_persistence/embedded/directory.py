"""Files below a data directory, opened so that no other user decides what is opened.

A process that runs as root reads and writes in directories of which parts belong to others: to the
servers, to API and worker, and, when an earlier version made it, to the user `nobody`. Each of them
may put links, pipes or files of others in place of what is looked for.

Invariant: a directory is opened once, and everything in it is reached by its name through the
descriptor. No name is followed if it is a link; what is opened is a regular file of the expected
owner, and no open waits for a pipe.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from polyglot_persistence.errors import ConfigurationError

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
_FILE_OF_GROUP = 0o640

_WRITABLE_BY_OTHERS = 0o022
_ACCESS_LISTS = ("system.posix_acl_access", "system.posix_acl_default")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Directory:
    """An open directory; `path` is for messages, and for the arguments of programs."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def at(cls, path: Path) -> "Directory":
        """Open the directory that the operator named; links on the way are the operator's.

        Raises:
            OSError: it cannot be opened.
        """
        return cls(path, os.open(path, _OPEN_DIRECTORY))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator["Directory"]:
        """Open the directory of that name.

        Raises:
            FileNotFoundError: there is none.
            ConfigurationError: it is something else, a link among others.
        """
        try:
            descriptor = os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise _unfit(self.path / name, "is no directory") from error
            raise
        directory = Directory(self.path / name, descriptor)
        try:
            yield directory
        finally:
            directory.close()

    def make(self, name: str) -> bool:
        """Make a private directory; return False if something of this name is there."""
        try:
            os.mkdir(name, PRIVATE_DIRECTORY, dir_fd=self.descriptor)
        except FileExistsError:
            return False
        return True

    def stat(self, name: str) -> os.stat_result | None:
        """Return the state of the name itself, also of a link; None if it is missing."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, name: str, flags: int, *, owner: int | None = None) -> int:
        """Open a regular file of `owner`, by default this process's user; return the descriptor.

        With `O_CREAT` a file that is missing is made, for its owner alone.

        Raises:
            OSError: it is missing, or cannot be opened.
            ConfigurationError: there is something else of this name.
        """
        try:
            descriptor = os.open(name, flags | _OPEN_FILE, PRIVATE_FILE, dir_fd=self.descriptor)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:  # a link, a directory, a pipe without a reader, a socket
            found = self.stat(name)
            if found is None or stat.S_ISREG(found.st_mode):
                raise
            raise _unfit(self.path / name, "is no regular file") from error
        try:
            _check(self.path / name, os.fstat(descriptor), os.geteuid() if owner is None else owner)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, name: str, bytes_max: int, *, owner: int | None = None) -> bytes | None:
        """Return the beginning of a file; None if it is missing. Raises as `open` does."""
        try:
            descriptor = self.open(name, os.O_RDONLY, owner=owner)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(bytes_max)

    def write(self, name: str, text: str, *, group: int | None = None) -> None:
        """Write a file whole or not at all, in the place of any before.

        It is for its owner alone, or also for the group to read.
        """
        new = f"{name}.new"
        self.remove(new)
        descriptor = self.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if group is not None:
                os.fchown(descriptor, -1, group)
                os.fchmod(descriptor, _FILE_OF_GROUP)
            os.fsync(file.fileno())
        self.rename(new, name)

    def rename(self, old: str, new: str) -> None:
        """Give another name, durably, in the place of whatever had it."""
        os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        os.fsync(self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a name, a link itself and not what it leads to; nothing if it is missing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """Return the names of all that is in it."""
        return os.listdir(self.descriptor)  # noqa: PTH208 -- by the descriptor, not by a path


def take_back(directory: Directory, mode: int) -> None:
    """Make a directory of another user this process's own, with the mode, and the files in it.

    Nobody else can put anything into it from then on. Regular files become this user's; links,
    pipes and files with a second name elsewhere are removed, as whoever owned the directory may
    have put them there for us to follow. Directories stay as they are: see `hand_over`. It has the
    mode only once all is done, so that what was cut short can be seen.

    Raises:
        OSError: this process may not change owners.
    """
    _seize(directory.descriptor)
    for name in directory.names():
        found = directory.stat(name)
        if found is None or stat.S_ISDIR(found.st_mode):
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            directory.remove(name)
        else:
            _give_file(directory, name, os.geteuid(), os.getegid())
    os.fchmod(directory.descriptor, mode)


def hand_over(directory: Directory, name: str, uid: int, gid: int) -> None:
    """Make a directory and all files below it another user's; without effect if it is that user's.

    The directory itself changes hands last, so that what was cut short is done again. Links are
    left as they are.

    Raises:
        FileNotFoundError: there is none.
        ConfigurationError: a file below it has a second name elsewhere.
        OSError: this process may not change owners.
    """
    with directory.within(name) as given:
        if os.fstat(given.descriptor).st_uid != uid:
            _give(given, uid, gid)


def _give(directory: Directory, uid: int, gid: int) -> None:
    """Give what is in it and at last itself; meanwhile it is ours, so that nobody can interfere."""
    _seize(directory.descriptor)
    for name in directory.names():
        found = directory.stat(name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            with directory.within(name) as below:
                _give(below, uid, gid)
        elif found is not None and stat.S_ISREG(found.st_mode):
            _give_file(directory, name, uid, gid)
    os.fchown(directory.descriptor, uid, gid)


def _give_file(directory: Directory, name: str, uid: int, gid: int) -> None:
    descriptor = os.open(name, os.O_RDONLY | _OPEN_FILE, dir_fd=directory.descriptor)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            # Whoever owned the directory may have linked what is nobody's to give.
            raise _unfit(directory.path / name, "has a second name elsewhere (a hard link)")
        _forget_access_lists(descriptor)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & PRIVATE_DIRECTORY)
        os.fchown(descriptor, uid, gid)
    finally:
        os.close(descriptor)


def _seize(descriptor: int) -> None:
    os.fchown(descriptor, os.geteuid(), os.getegid())
    _forget_access_lists(descriptor)
    os.fchmod(descriptor, PRIVATE_DIRECTORY)


def _forget_access_lists(descriptor: int) -> None:
    """Take away what setfacl(1) gave, which outlives a change of owner (Linux)."""
    if hasattr(os, "removexattr"):
        for name in _ACCESS_LISTS:
            with contextlib.suppress(OSError):  # there is none, or the file system knows none
                os.removexattr(descriptor, name)


def is_writable_by_others(found: os.stat_result) -> bool:
    """Whether more than the owner may put something into a directory."""
    return bool(found.st_mode & _WRITABLE_BY_OTHERS)


def _check(path: Path, found: os.stat_result, owner: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unfit(path, "is no regular file")
    if found.st_uid != owner:
        raise _unfit(path, f"is user {found.st_uid}'s, not {owner}'s")


def _unfit(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(f"{path} {what}; find out where it comes from, and remove it")
