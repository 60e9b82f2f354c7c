"""A Docker engine of its own, out of Debian trixie, in a root directory of its own.

It is newer than what this machine's Debian may bring (health checks need Engine 25), and brings
`docker compose` along. Client and engine run in one mount namespace that ends with them.

Invariant: nothing of the machine is changed for good. Rules of the packet filter, the bridge and
the forwarding of packets are as before once the engine has stopped.
"""

import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from real_servers.machine import (
    GONE,
    ServerError,
    bare_environment,
    identity,
    install,
    mirror,
    run,
    wait_gone,
)

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
NOT_IN_IMAGE = (
    *("./var/cache/apt/archives/", "./var/lib/apt/lists/"),
    *("./usr/share/doc/", "./usr/share/locale/", "./usr/share/man/"),
)
TABLES = ("filter", "nat")
"""Of the packet filter: those that the engine adds rules to."""
START_SECONDS = 60
# A changed root (chroot) is not enough: what is executed in a container later enters the root of
# the mount namespace, which must be the container's.
START = """
mount --bind "$1" "$1"
for name in proc sys dev; do mount --rbind "/$name" "$1/$name"; done
mount -t tmpfs tmpfs "$1/run"
mount --bind "$2" "$1$2"
cd "$1"
mkdir -p mnt/old
pivot_root . mnt/old
umount --lazy mnt/old
exec dockerd
"""


def state_dir() -> Path:
    return Path(os.environ.get("COMPOSE_TEST_DIR", "/var/tmp/polyglot-compose-test")).absolute()


class Engine:
    """Installed once, started for a run, stopped after it; images and volumes stay."""

    def __init__(self) -> None:
        self.dir = state_dir()
        self.root = self.dir / "engine"
        self.debian = self.dir / "debian.tar"
        self.log = self.dir / "dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._forwarding = ""
        self._rules = b""

    def install(self) -> None:
        """Make the root directory, and keep a bare one to make images of."""
        if self.root.exists():
            return
        if not shutil.which("debootstrap"):
            install("debootstrap")
        new = self.dir / "engine.new"
        shutil.rmtree(new, ignore_errors=True)
        self.dir.mkdir(parents=True, exist_ok=True)
        run(["debootstrap", "--variant=minbase", "trixie", str(new), mirror()])
        with tarfile.open(self.debian, "w") as archive:
            archive.add(new, ".", filter=_in_image)
        (new / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (new / "usr/sbin/policy-rc.d").chmod(0o755)
        apt = ["chroot", str(new), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
        shutil.copy("/etc/resolv.conf", new / "etc/resolv.conf")
        run([*apt, "update"])
        run([*apt, "install", "--no-install-recommends", *PACKAGES])
        new.rename(self.root)

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        self._forwarding = FORWARDING.read_text()
        self._rules = b"".join(self._in_root("iptables-save", "-t", name) for name in TABLES)
        checkout = Path(f"{self.root}{REPOSITORY}")
        checkout.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=TERM"),  # it never outlives this run
                    *("unshare", "--mount", "--propagation=private", "sh", "-ec", START, "sh"),
                    *(str(self.root), str(REPOSITORY)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=bare_environment(),
                start_new_session=True,  # a Ctrl-C is for the run, which then stops the engine
            )
        deadline = time.monotonic() + START_SECONDS
        while self.docker("version", check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise ServerError(f"the engine did not start; the end of {self.log}:\n{tail}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the engine with all its containers, and leave the machine as it was."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        subprocess.run(["ip", "link", "delete", "docker0"], check=False, capture_output=True)
        subprocess.run(
            ["chroot", str(self.root), "iptables-restore"], input=self._rules, check=True
        )
        FORWARDING.write_text(self._forwarding)

    def docker(
        self,
        *arguments: str,
        check: bool = True,
        variables: dict[str, str] | None = None,
        stdin: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of `docker` in the checkout, as a user would."""
        with (stdin or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(
                self._command(*arguments),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                env={**bare_environment(), "HOME": "/root", **(variables or {})},
            )
        if check and done.returncode:
            raise ServerError(f"docker {' '.join(arguments)} failed:\n{done.stdout}")
        return done

    @contextmanager
    def events(self, *names: str) -> Iterator[Path]:
        """Follow the events of these names; yield the file that they are in, one JSON a line.

        Afterwards the engine has them no more: it remembers 256, and each health check is three.
        """
        path = self.dir / "events"
        filters = [f"--filter=event={name}" for name in names]
        with path.open("wb") as file:
            command = self._command("events", "--format={{json .}}", *filters)
            follower = subprocess.Popen(command, stdout=file, env=bare_environment())
        try:
            yield path
        finally:
            follower.terminate()
            follower.wait()

    def _command(self, *arguments: str) -> list[str]:
        if self._process is None:
            raise ServerError("the engine was not started")
        return [
            *("nsenter", "--mount", f"--target={self._process.pid}"),
            *("env", f"--chdir={REPOSITORY}", "docker", *arguments),
        ]

    def _in_root(self, *command: str) -> bytes:
        command = ("chroot", str(self.root), *command)
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def kill(pid: int) -> None:
    """Kill a container's main process as a crash does: the engine is not told."""
    begun = identity(pid)
    if begun[1] == GONE:
        raise ServerError(f"process {pid} is gone already")
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


def _in_image(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what an image has no use for, as the slim ones of Debian do."""
    left_out = entry.ischr() or entry.isblk() or entry.name.startswith(NOT_IN_IMAGE)
    return None if left_out else entry
