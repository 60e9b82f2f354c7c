"""The users that the processes of a `polyglot up` run as.

An ordinary user runs all of them as is. Root keeps the data directory, and runs the servers as one
user of their own, API and worker as another, neither of which anything else on the machine runs as.
There is no entry for them in the user database, and nothing needs one but initdb. What root tries,
in this order:

- that user, when it can reach the program and the data directory;
- that user with the one capability to search or to override the directories in its way: for a
  checkout in a 0700 home such as /root, also in a container that allows no namespaces. The process
  is confined to what it needs, where the kernel can do that;
- a user namespace in which root is called `nobody`: for a root who may not change users or owners
  (rootless containers, file systems without owners). The files stay root's own.

The last one also serves a user without an entry in the user database, whom initdb refuses.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.errors import ConfigurationError

# linux/capability.h. To override includes to search; the weaker one comes first.
CAP_NET_BIND_SERVICE = 10
CAP_DAC_READ_SEARCH = 2
CAP_DAC_OVERRIDE = 1

PROBE_TIMEOUT_SECONDS = 10.0

LAUNCH = Path(__file__).with_name("launch.py")

_UIDS = range(65520, 65534)
"""No distribution gives these to users or services (systemd.io/UIDS-GIDS), and containers that map
only 65,536 users have them."""

_PROBE = ".probe"


class Account(IntEnum):
    """The two groups of processes that run as a user of their own under root."""

    SERVERS = 0
    PROGRAMS = 1


class Identity(NamedTuple):
    """The argument for `launch.py`, and the owner of the files (outside of any namespace)."""

    argument: str
    uid: int
    gid: int
    reads: tuple[Path, ...] = ()
    """What it is confined to, if it could pass by permissions; see `launch.py`."""

    def arguments(self, owns: Sequence[Path] = ()) -> list[str | Path]:
        """Return the arguments of `launch.py` for a process that writes below `owns`."""
        confinement: list[str | Path] = []
        if self.reads:
            for option, paths in (("--reads", self.reads), ("--owns", owns)):
                confinement += [part for path in paths for part in (option, path)]
        return [self.argument, *confinement]

    def reading(self, path: Path) -> "Identity":
        """Return the same with one path more to read, if it is confined; else itself."""
        return self._replace(reads=(*self.reads, path)) if self.reads else self

    def allowed(self, capability: int) -> "Identity":
        """Return the same with one capability more, if root becomes another user; else itself."""
        form, _, numbers = self.argument.partition(":")
        if form != "user":
            return self
        return self._replace(
            argument=f"{form}:{numbers}{'' if numbers.endswith(':') else ','}{capability}"
        )


SAME = Identity("same", os.geteuid(), os.getegid())
"""The user of this process."""


def identity_for(account: Account, directory: Directory, needed: Sequence[Path]) -> Identity:
    """Return an identity that can own files in `directory` and reach the `needed` paths.

    API and worker run as root if root cannot become another user.

    Raises:
        ConfigurationError: if there is no way for a server, which refuses root.
    """
    able = [one for one in _candidates(account) if one == SAME or _can_own(directory, one)]
    if SAME in able:
        return SAME
    identity = first_that_can_use(able, [directory.path, *needed])
    if identity is not None:
        return _confined(identity, needed)
    if account is Account.PROGRAMS:
        return SAME
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and here root can neither become another user with "
        f"access to {directory.path} nor create a user namespace; run as an ordinary user, or use "
        "a server of your own (POSTGRES_DSN)"
    )


def identity_of(owner: os.stat_result, needed: Sequence[Path]) -> Identity:
    """Return the identity for work on files of this owner; a user other than root keeps its own."""
    if os.geteuid() != 0 or owner.st_uid == 0:
        return SAME
    identity = first_that_can_use(list(_as_user(owner.st_uid, owner.st_gid)), needed)
    if identity is None:
        raise ConfigurationError(
            f"root cannot become user {owner.st_uid}, whose files these are; run as that user"
        )
    return identity


def initializer_for(servers: Identity, directory: Directory, needed: Sequence[Path]) -> Identity:
    """Return the identity for initdb, which refuses a user without an entry in the user database.

    In a namespace the servers' own user has that of `nobody`. Where there are none, or the files
    are out of reach in one, it is `nobody` itself, who hands them over afterwards.
    """
    if not servers.argument.startswith("user:"):
        return servers
    nobody = nobody_entry()
    named = servers._replace(argument=f"{servers.argument}+{_namespace(nobody)}")
    if first_that_can_use([named], [directory.path, *needed]) is not None:
        return named
    capabilities = servers.argument.rpartition(":")[2]
    argument = f"user:{nobody.pw_uid}:{nobody.pw_gid}:{capabilities}"
    return servers._replace(argument=argument, uid=nobody.pw_uid, gid=nobody.pw_gid)


def account_uid(account: Account) -> int:
    """Return the account's number as a user and as a group; no other user or group has it."""
    unused = [uid for uid in _UIDS if not _has_entry(uid)]
    if account >= len(unused):
        raise ConfigurationError(f"the user database leaves no number of {_UIDS} for our users")
    return unused[account]


def nobody_entry() -> pwd.struct_passwd:
    """Return `nobody`, or else any other user in the user database except root."""
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        pass
    for entry in pwd.getpwall():
        if entry.pw_uid != 0:
            return entry
    raise ConfigurationError("PostgreSQL needs a user other than root; this system has none")


def _candidates(account: Account) -> Iterator[Identity]:
    if os.geteuid() == 0:
        uid = account_uid(account)
        yield from _as_user(uid, uid)
    elif account is Account.PROGRAMS or _has_entry(os.geteuid()):
        yield SAME
    if account is Account.SERVERS and sys.platform == "linux":
        yield Identity(_namespace(nobody_entry()), os.geteuid(), os.getegid())


def _as_user(uid: int, gid: int) -> Iterator[Identity]:
    """Yield that user without and with a capability, from the least rights to the most."""
    yield Identity(f"user:{uid}:{gid}:", uid, gid)
    if sys.platform == "linux":
        for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
            yield Identity(f"user:{uid}:{gid}:{capability}", uid, gid)


def _confined(identity: Identity, needed: Sequence[Path]) -> Identity:
    """Confine an identity that keeps a capability."""
    is_plain = identity.argument.endswith(":") or not identity.argument.startswith("user:")
    return identity if is_plain else identity._replace(reads=tuple(needed))


def _namespace(entry: pwd.struct_passwd) -> str:
    return f"namespace:{entry.pw_uid}:{entry.pw_gid}"


def _has_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def first_that_can_use(identities: Sequence[Identity], paths: Sequence[Path]) -> Identity | None:
    """Return the first identity that can read these files and search these directories."""
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", LAUNCH),
            *("--first", *(one.argument for one in identities), "--can-use", *map(str, paths)),
        ],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=PROBE_TIMEOUT_SECONDS,
    )
    return identities[int(done.stdout)] if done.returncode == 0 else None


def _can_own(directory: Directory, identity: Identity) -> bool:
    """Whether this process can give the identity a directory in this one."""
    if identity.uid == os.geteuid():
        return True
    directory.make(_PROBE)
    try:
        with directory.within(_PROBE) as probe:
            os.fchown(probe.descriptor, identity.uid, identity.gid)
            return os.fstat(probe.descriptor).st_uid == identity.uid
    except OSError:
        return False
    finally:
        os.rmdir(_PROBE, dir_fd=directory.descriptor)
