"""Becomes another program whose life is bound to its parent's; run by path.

    python -I -S launch.py PARENT_PID DEATH_SIGNAL IDENTITY
                           [--reads PATH]... [--owns PATH]... PROGRAM ARGUMENT...
    python -I -S launch.py --first IDENTITY... --can-use PATH...

The second form prints the number, from 0, of the first identity that can use all the paths.

A small program of its own, and not a `preexec_fn`: that one is not safe beside threads, and the
kernel forgets the death signal at the change of user that has to come first (prctl(2),
PR_SET_PDEATHSIG). `IDENTITY` is made by `identity.py`, which also says why each form is needed:
one of these, or two joined by `+`, taken on in this order:

    same
    user:UID:GID:CAPABILITY,...
    namespace:UID:GID

No program that it executes gives it more rights (`no_new_privs`).

With `--reads` and `--owns` it is confined (landlock(7)), where the kernel can do that: it reads
what lies below these paths and what any user may read in the system's own directories, and writes
below the second kind only. This restricts an identity that keeps a capability to bypass
permissions.

Invariant: only the standard library; nothing of this package is imported (the interpreter runs
without `site`).
"""

import ctypes
import os
import stat
import struct
import sys
from typing import NoReturn

# Numbers of the Linux system call interface: linux/prctl.h, linux/securebits.h,
# linux/capability.h, linux/sched.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWUSER = 0x10000000

_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH

# linux/landlock.h; the numbers of the calls are the same on all architectures.
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_LANDLOCK_VERSION_MIN = 2  # before, no file could be moved to another directory
_LANDLOCK_VERSION_TRUNCATE = 3
_WRITE_FILE, _READ_FILE, _READ_DIRECTORY, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_MAKE_REMOVE_AND_MOVE = sum(1 << number for number in range(4, 14))
_READS = _READ_FILE | _READ_DIRECTORY
_WRITES = _WRITE_FILE | _MAKE_REMOVE_AND_MOVE | _TRUNCATE
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"),
    *("/proc", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/run/systemd/resolve"),
)
_DEVICES = tuple(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "shm")
)

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> NoReturn:
    """Take on the identity, bind to the parent, and become the program."""
    if arguments[0] == "--first":
        sys.exit(_print_first(arguments[1:]))
    parent, death_signal, identity, *rest = arguments
    take_on(identity)
    paths: dict[str, list[str]] = {"--reads": [], "--owns": []}
    while rest[0] in paths:
        option, path, *rest = rest
        paths[option].append(path)
    if paths["--reads"]:
        _confine(paths["--reads"], paths["--owns"])
    program, *rest = rest
    if sys.platform == "linux":
        _check(_libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0), "PR_SET_PDEATHSIG")
        if os.getppid() != int(parent):
            sys.exit(1)  # the parent died before the kernel watched it
    os.execv(program, [program, *rest])  # noqa: S606 -- becoming it is the purpose


def _print_first(arguments: list[str]) -> str | None:
    """Print which identity is the first that can use the paths, or return a fault."""
    end = arguments.index("--can-use")
    for number, identity in enumerate(arguments[:end]):
        if _can_use(identity, arguments[end + 1 :]):
            sys.stdout.write(f"{number}\n")
            return None
    return "no identity can use all of them"


def _can_use(identity: str, paths: list[str]) -> bool:
    """Whether the identity can; a process of its own takes it on, as nobody can give it back."""
    child = os.fork()
    if child == 0:
        can = False
        try:
            take_on(identity)
            can = os.geteuid() != 0 and all(map(_is_usable, paths))
        finally:
            os._exit(0 if can else 1)
    return os.waitpid(child, 0)[1] == 0


def _is_usable(path: str) -> bool:
    """Whether a file can be read, and executed if it is a program, or a directory searched."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- no need of pathlib
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        return os.access(path, os.X_OK)
    return os.access(path, os.R_OK | (os.X_OK if mode & _EXECUTABLE else 0))


def take_on(identity: str) -> None:
    """Become whom the identity names, for good; this process may have one thread."""
    for form in identity.split("+"):
        _become(form)
    if sys.platform == "linux":
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "NO_NEW_PRIVS")


def _become(identity: str) -> None:
    form, *numbers = identity.split(":")
    if form == "user":
        uid, gid = map(int, numbers[:2])
        _become_user(uid, gid, [int(number) for number in numbers[2].split(",") if number])
    elif form == "namespace":
        _enter_user_namespace(int(numbers[0]), int(numbers[1]))


def _become_user(uid: int, gid: int, capabilities: list[int]) -> None:
    """Become the user, keeping these capabilities across exec."""
    if capabilities:
        # Without this bit access(2) leaves capabilities out of account (capabilities(7)), and
        # PostgreSQL asks it whether it can find itself.
        _check(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "SECUREBITS")
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if capabilities:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        low = sum(1 << capability for capability in capabilities)
        sets = (ctypes.c_uint32 * 6)(low, low, low, 0, 0, 0)
        _check(_libc.capset(header, sets), "capset")
        for capability in capabilities:
            _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0), "AMBIENT")


def _enter_user_namespace(uid: int, gid: int) -> None:
    """Be `uid` in a user namespace of its own, which outside is whoever it was before."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    # After a change of user /proc/self is root's until the next exec, and its maps with it.
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "DUMPABLE")
    _check(_libc.unshare(_CLONE_NEWUSER), "unshare")
    for name, text in (
        ("setgroups", "deny"),  # else the group map may not be written (user_namespaces(7))
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def _confine(reads: list[str], owns: list[str]) -> None:
    """Take away what the paths do not name; do nothing on a kernel that cannot."""
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < _LANDLOCK_VERSION_MIN:
        return
    writes = _WRITES & ~(0 if version >= _LANDLOCK_VERSION_TRUNCATE else _TRUNCATE)
    handled = (ctypes.c_uint64 * 1)(_READS | writes)
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, handled, ctypes.sizeof(handled), 0)
    _check(min(ruleset, 0), "landlock_create_ruleset")
    for path in (*reads, *_open_to_all()):
        _allow(ruleset, path, _READS)
    for path in (*owns, *_DEVICES):
        _allow(ruleset, path, _READS | writes)
    _check(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _open_to_all() -> list[str]:
    """Return the system's directories, and what any user may read of its configuration."""
    configuration = [entry.path for entry in os.scandir("/etc") if _is_for_all(entry)]
    return [*_SYSTEM, *configuration]


def _is_for_all(entry: os.DirEntry[str]) -> bool:
    try:
        return bool(entry.stat().st_mode & stat.S_IROTH)
    except OSError:  # a link that leads nowhere
        return False


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        access &= _OF_FILES
    rule = struct.pack("=Qi", access, descriptor)
    added = _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
    _check(added, "landlock_add_rule")
    os.close(descriptor)


def _check(result: int, call: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), call)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot start {' '.join(sys.argv[4:])} as {sys.argv[3]}: {error}")
