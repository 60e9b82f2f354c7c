"""A private directory for a Unix socket, with a path short enough for one.

It is `run` in the data directory where a socket can be bound there; where the path is too long
or holds a comma, or the file system knows no sockets, it is a directory for temporary files, and
`run` points to it.

Invariant: it is the server's own; the group that API and worker have may reach what is in it.
"""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from polyglot_persistence.embedded.directory import PRIVATE_DIRECTORY, Directory
from polyglot_persistence.embedded.identity import Account, Identity, account_uid
from polyglot_persistence.errors import ConfigurationError

SOCKET_PATH_BYTES_MAX = 103
"""`sun_path` without its NUL: 107 on Linux (unix(7)), 103 on macOS."""

SOCKET_MODE = "0770"
"""Sockets have the group of their directory: on Linux by its set-group-ID bit."""

_RUN = "run"
_SHARED_DIRECTORY = 0o2710


def open_socket_directory(data: Directory, socket_name: str, identity: Identity) -> Path:
    """Return an empty directory that belongs to the identity.

    The same one as last time, if that is still there. The caller holds the data directory's lock.

    Raises:
        ConfigurationError: if a socket can be bound nowhere.
    """
    elsewhere = _linked(data)
    if elsewhere is not None:
        with contextlib.suppress(OSError, ConfigurationError):
            if _is_emptied(elsewhere, identity):
                return elsewhere
    _remove(data)
    data.make(_RUN)
    directory = data.path / _RUN
    if _can_bind(directory, socket_name):
        with data.within(_RUN) as given:
            _give(given, identity)
        return directory
    os.rmdir(_RUN, dir_fd=data.descriptor)
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 -- mkdtemp is safe
        directory = Path(tempfile.mkdtemp(prefix="polyglot-", dir=parent))
        if _can_bind(directory, socket_name):
            os.symlink(directory, _RUN, dir_fd=data.descriptor)
            with _opened(directory) as given:
                _give(given, identity)
            return directory
        directory.rmdir()
    raise ConfigurationError(
        f"no Unix socket can be made in {data.path}, nor in {tempfile.gettempdir()}; "
        "choose a data directory with a shorter path, on a local file system"
    )


def close_socket_directory(data: Directory) -> None:
    """Remove the directory and what points to it."""
    elsewhere = _linked(data)
    if elsewhere is not None:
        shutil.rmtree(elsewhere, ignore_errors=True)  # refuses to follow a link put there
    _remove(data)


def _linked(data: Directory) -> Path | None:
    """Return where `run` points to; None if it is no link."""
    found = data.stat(_RUN)
    if found is None or not stat.S_ISLNK(found.st_mode):
        return None
    return Path(os.readlink(_RUN, dir_fd=data.descriptor))


def _remove(data: Directory) -> None:
    """Remove `run`, whatever it is; a link, not what it leads to."""
    found = data.stat(_RUN)
    if found is not None and stat.S_ISDIR(found.st_mode):
        shutil.rmtree(_RUN, ignore_errors=True, dir_fd=data.descriptor)
    else:
        data.remove(_RUN)


def _is_emptied(path: Path, identity: Identity) -> bool:
    """Remove what an earlier server left in its directory; False if it is no longer that."""
    with _opened(path) as directory:
        found = os.fstat(directory.descriptor)
        if found.st_uid != identity.uid or found.st_mode & 0o007:
            return False
        for name in directory.names():
            directory.remove(name)
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Directory]:
    """Open a directory in one for temporary files, where its owner may put something else."""
    with (
        contextlib.closing(Directory.at(path.parent)) as parent,
        parent.within(path.name) as directory,
    ):
        yield directory


def _can_bind(directory: Path, name: str) -> bool:
    path = directory / name
    # Clients of PostgreSQL take a comma for the end of one server's host.
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX or "," in str(path):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


def _give(directory: Directory, identity: Identity) -> None:
    if identity.uid == os.geteuid():
        os.fchmod(directory.descriptor, PRIVATE_DIRECTORY)
    else:
        os.fchown(directory.descriptor, identity.uid, account_uid(Account.PROGRAMS))
        os.fchmod(directory.descriptor, _SHARED_DIRECTORY)
