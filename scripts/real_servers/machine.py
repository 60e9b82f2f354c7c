"""What a server needs of the machine: packages, ports, processes.

Invariant: a process is signalled only if it is the one that was started: its id and the moment of
its start are both as recorded.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

STOP_SECONDS = 60
GONE = -1
"""Stands for the moment of its start when a process is no more."""

POLICY = Path("/usr/sbin/policy-rc.d")
one_installs = threading.Lock()


class ServerError(Exception):
    """What cannot be done, and why."""


def bare_environment() -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
    }


def run(command: list[str], cwd: Path | None = None, text: str = "") -> None:
    """Run a command whose output is shown only if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        output = done.stdout.decode(errors="replace").strip()
        raise ServerError(f"{' '.join(command)} failed ({done.returncode}):\n{output}")


def install(*packages: str) -> None:
    """Install Debian packages without starting the services that they bring."""
    if os.geteuid() != 0:
        raise ServerError(f"install these first, as root: apt-get install {' '.join(packages)}")
    sys.stderr.write(f"installing {' '.join(packages)}\n")
    with one_installs:
        guarded = not POLICY.exists()
        if guarded:
            POLICY.write_text("#!/bin/sh\nexit 101\n")  # "action forbidden by policy"
            POLICY.chmod(0o755)
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        try:
            run(["apt-get", "-q", "-y", "update"])
            run(["apt-get", "-q", "-y", "install", "--no-install-recommends", *packages])
        finally:
            if guarded:
                POLICY.unlink()


def mirror() -> str:
    """Return the mirror that apt already uses."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        if line.rstrip("/").endswith("/debian"):
            return line
    raise ServerError("apt knows no Debian mirror")


def talk(port: int, request: bytes) -> bytes:
    """Return the beginning of the answer, or nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request)
            return connection.recv(256)
    except OSError:
        return b""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ports that are free, and below those that the kernel gives to outgoing connections."""
    found = [port for port in random.sample(range(20000, 32000), 50) if is_free(port)]
    return found[:count]


def identity(pid: int) -> list[int]:
    """Return the process id with the moment of its start, which no later process shares."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [pid, GONE]
    return [pid, GONE if fields[0] == "Z" else int(fields[19])]


def stop(pid: int, number: signal.Signals) -> None:
    """Ask the process to stop, and kill its session if it does not."""
    os.kill(pid, number)
    if not wait_gone(pid):
        os.killpg(pid, signal.SIGKILL)
        wait_gone(pid)


def wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    begun = identity(pid)
    while begun[1] != GONE and identity(pid) == begun:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def wait_left(directory: Path) -> None:
    """Wait until no process works in the directory: what a killed server forked ends by itself."""
    deadline = time.monotonic() + STOP_SECONDS
    links = Path("/proc").glob
    while working := [link for link in links("[0-9]*/cwd") if leads_to(link, directory)]:
        if time.monotonic() > deadline:
            raise ServerError(f"process {working[0].parent.name} still works in {directory}")
        time.sleep(0.05)


def leads_to(link: Path, directory: Path) -> bool:
    try:
        return link.readlink() == directory
    except OSError:  # it has just ended, or is another user's
        return False
