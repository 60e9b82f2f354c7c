"""As whom PostgreSQL runs: it refuses root, and root's files may lie where nobody else can go.

An ordinary user runs it as is. For root there are, tried in this order:

- the user `nobody`, when it can reach the binaries and the data directory;
- `nobody` with the one capability to search or to override the directories in its way: for a
  checkout in a 0700 home such as /root, also in a container that allows no namespaces;
- a user namespace in which root is called `nobody`: for a root who may not change users or owners
  (rootless containers, file systems without owners). The files stay root's own.

The last one also serves a user without an entry in the user database, whom initdb refuses.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from polyglot_persistence.errors import ConfigurationError

# linux/capability.h. To override includes to search; the weaker one comes first.
_CAP_DAC_READ_SEARCH = 2
_CAP_DAC_OVERRIDE = 1
_NO_CAPABILITY = -1

PROBE_TIMEOUT_SECONDS = 10.0

_LAUNCH = Path(__file__).with_name("launch.py")


class Identity(NamedTuple):
    """What `launch.py` is told, and who owns the files (outside of any namespace)."""

    argument: str
    uid: int
    gid: int


SAME = Identity("same", -1, -1)
"""Whoever runs this process."""


def identity_for(data_dir: Path, needed: Sequence[Path]) -> Identity:
    """Return as whom a server that refuses root can use `data_dir` and reach what is `needed`.

    The directory and all in it belong to that user afterwards.

    Raises:
        ConfigurationError: if there is no way.
    """
    for identity in _candidates():
        if identity == SAME:
            return identity
        if _can_use(identity, [data_dir.parent, *needed]) and _own(data_dir, identity):
            return identity
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and here root can neither become the user nobody with "
        f"access to {data_dir} nor create a user namespace; run as an ordinary user, or use a "
        "server of your own (POSTGRES_DSN)"
    )


def _candidates() -> Iterator[Identity]:
    nobody = _nobody()
    if os.geteuid() == 0:
        uid, gid = nobody.pw_uid, nobody.pw_gid
        yield Identity(f"user:{uid}:{gid}:{_NO_CAPABILITY}", uid, gid)
        if sys.platform == "linux":
            for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
                yield Identity(f"user:{uid}:{gid}:{capability}", uid, gid)
    elif _has_entry(os.geteuid()):
        yield SAME
    if sys.platform == "linux":
        yield Identity(f"namespace:{nobody.pw_uid}:{nobody.pw_gid}", os.geteuid(), os.getegid())


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        pass
    for entry in pwd.getpwall():
        if entry.pw_uid != 0:
            return entry
    raise ConfigurationError("PostgreSQL needs a user other than root; this system knows none")


def _has_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _can_use(identity: Identity, paths: Sequence[Path]) -> bool:
    launch = (sys.executable, "-I", "-S", str(_LAUNCH), "0", "0", identity.argument)
    done = subprocess.run(
        [*launch, "--can-use", *map(str, paths)],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=PROBE_TIMEOUT_SECONDS,
    )
    return done.returncode == 0


def _own(directory: Path, identity: Identity) -> bool:
    """Give the directory to the identity; return whether that was possible."""
    if directory.stat().st_uid == identity.uid:
        return True
    try:
        for parent, _, names in os.walk(directory, topdown=False):
            for name in names:
                os.chown(Path(parent, name), identity.uid, identity.gid, follow_symlinks=False)
            os.chown(parent, identity.uid, identity.gid)  # the directory itself comes last
    except OSError:
        return False
    return True
