"""A private directory for a Unix socket, with a path short enough for one.

It is `run` in the data directory where a socket can be bound there; where the path is too long
or holds a comma, or the file system knows no sockets, it is a directory for temporary files, and
`run` points to it.
"""

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from polyglot_persistence.embedded.identity import SAME, Identity
from polyglot_persistence.errors import ConfigurationError

SOCKET_PATH_BYTES_MAX = 103
"""`sun_path` without its NUL: 107 on Linux (unix(7)), 103 on macOS."""

_MODE = 0o700


def open_socket_directory(data_dir: Path, socket_name: str, identity: Identity = SAME) -> Path:
    """Return an empty directory of mode 0700 that belongs to the identity.

    The same one as last time, if that is still there. The caller holds the data directory's lock.

    Raises:
        ConfigurationError: if a socket can be bound nowhere.
    """
    link = data_dir / "run"
    uid = os.geteuid() if identity is SAME else identity.uid
    if link.is_symlink():
        directory = link.readlink()
        if _is_private(directory, uid):
            _empty(directory)
            return directory
        link.unlink()
    if not link.is_dir():
        link.mkdir(mode=_MODE)
    _empty(link)
    if _can_bind(link, socket_name):
        return _give(link, identity)
    link.rmdir()
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 -- mkdtemp is safe
        directory = Path(tempfile.mkdtemp(prefix="polyglot-", dir=parent))
        if _can_bind(directory, socket_name):
            link.symlink_to(directory)
            return _give(directory, identity)
        directory.rmdir()
    raise ConfigurationError(
        f"no Unix socket can be made in {data_dir}, nor in {tempfile.gettempdir()}; "
        "choose a data directory with a shorter path, on a local file system"
    )


def close_socket_directory(data_dir: Path) -> None:
    """Remove the directory and what points to it."""
    link = data_dir / "run"
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)  # refuses to follow a link put there
        link.unlink()
    else:
        shutil.rmtree(link, ignore_errors=True)


def _is_private(directory: Path, uid: int) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == uid and stat.S_IMODE(found.st_mode) == _MODE
    )


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


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


def _give(directory: Path, identity: Identity) -> Path:
    if identity is not SAME and directory.stat().st_uid != identity.uid:
        os.chown(directory, identity.uid, identity.gid)
    return directory
