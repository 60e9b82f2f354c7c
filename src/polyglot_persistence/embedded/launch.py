"""Becomes another program whose life is bound to its parent's; run by path.

    python -I -S launch.py PARENT_PID DEATH_SIGNAL IDENTITY PROGRAM ARGUMENT...
    python -I -S launch.py PARENT_PID DEATH_SIGNAL IDENTITY --can-use PATH...

A small program of its own, and not a `preexec_fn`: that one is not safe beside threads, and the
kernel forgets the death signal at the change of user that has to come first (prctl(2),
PR_SET_PDEATHSIG). `IDENTITY` is made by `identity.py`, which also says why each form is needed:
one of these, or two joined by `+`, taken on in this order:

    same
    user:UID:GID:CAPABILITY,...
    namespace:UID:GID

Whoever it becomes, no program that it executes gives it more rights (`no_new_privs`).

Invariant: only the standard library; nothing of this package is imported (the interpreter runs
without `site`).
"""

import ctypes
import os
import stat
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

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> NoReturn:
    """Take on the identity, bind to the parent, and become the program."""
    parent, death_signal, identity, program, *rest = arguments
    take_on(identity)
    if program == "--can-use":
        sys.exit(0 if os.geteuid() != 0 and all(map(_is_usable, rest)) else 1)
    if sys.platform == "linux":
        _check(_libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0), "PR_SET_PDEATHSIG")
        if os.getppid() != int(parent):
            sys.exit(1)  # the parent died before the kernel was told to watch it
    os.execv(program, [program, *rest])  # noqa: S606 -- becoming it is the purpose


def _is_usable(path: str) -> bool:
    """Whether a file can be read, or a directory searched."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 -- no need of pathlib
    except OSError:
        return False
    return os.access(path, os.X_OK if is_directory else os.R_OK)


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


def _check(result: int, call: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), call)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot start {sys.argv[4]} as {sys.argv[3]}: {error}")
