"""How every server is started, found again, killed and stopped."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from real_servers.machine import (
    GONE,
    ServerError,
    bare_environment,
    free_ports,
    identity,
    install,
    is_free,
    stop,
    wait_gone,
)

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 240
"""Elasticsearch needs 15 s on an idle machine, and more than 120 s on one that does much else."""


def root_dir() -> Path:
    if named := os.environ.get(
        "SERVERS_DIR"
    ):  # an empty one names none, not where one happens to be
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/tmp/polyglot-servers")
    return REPOSITORY / ".cache" / "servers"


class Server:
    """One server: what it needs, how it is started, and how one sees that it answers."""

    name = ""
    packages: tuple[str, ...] = ()
    program = ""
    """A file that is there once the packages are."""
    user = ""
    """As whom it runs when root starts it."""
    ports: tuple[str, ...] = ("main",)
    stop_signal = signal.SIGTERM
    started_by_name_only = False
    """Whether it is for a few tests, and not among all servers."""

    def __init__(self) -> None:
        self.dir = root_dir() / self.name
        self.data = self.dir / "data"
        self.log = self.dir / "server.log"

    # --- what differs

    def commands(self) -> list[list[str]]:
        """Return the commands to start, in order; the last one is the server."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def prepare(self) -> None:
        """Write configuration; called before every start."""

    def answers(self) -> bool:
        raise NotImplementedError

    def settings(self) -> dict[str, str]:
        """Return the settings of this project that reach it."""
        raise NotImplementedError

    # --- what is the same

    def install(self) -> None:
        if not Path(self.program).exists():
            install(*self.packages)

    def port(self, kind: str = "main") -> int:
        ports: dict[str, int] = json.loads((self.dir / "ports.json").read_text())
        return ports[kind]

    def up(self) -> None:
        if self.server_pid():
            self.wait()
            return
        self.down()  # what a killed server stood on
        self.install()
        self.data.mkdir(parents=True, exist_ok=True)
        self.choose_ports()
        self.prepare()
        if os.geteuid() == 0 and self.user:
            subprocess.run(["chown", "-R", f"{self.user}:", str(self.data)], check=True)
        started = []
        with self.log.open("ab") as log:
            for command in self.commands():
                process = subprocess.Popen(
                    [*self.become(), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**bare_environment(), **self.environment()},
                    start_new_session=True,
                    cwd=self.data,
                )
                started.append(identity(process.pid))
                (self.dir / "processes.json").write_text(json.dumps(started))
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if not self.server_pid() or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise ServerError(f"{self.name} did not start; the end of {self.log}:\n{tail}")
            time.sleep(0.1)

    def become(self) -> list[str]:
        if os.geteuid() != 0 or not self.user:
            return []
        entry = pwd.getpwnam(self.user)
        return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]

    def choose_ports(self) -> None:
        """Keep the ports of last time if they are free, so that clients find it again."""
        path = self.dir / "ports.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if set(known) != set(self.ports) or not all(map(is_free, known.values())):
            path.write_text(
                json.dumps(dict(zip(self.ports, free_ports(len(self.ports)), strict=True)))
            )

    def pids(self) -> list[int]:
        """Return the recorded processes that still are the ones that were started."""
        return [pid for pid, begun in self.recorded() if identity(pid) == [pid, begun]]

    def server_pid(self) -> int | None:
        """Return the last one started, which is the server, if it runs."""
        last = [pid for pid, _ in self.recorded()][-1:]
        return next(iter(set(last) & set(self.pids())), None)

    def recorded(self) -> list[list[int]]:
        """Return the processes of the last start that were alive then, each with its moment."""
        path = self.dir / "processes.json"
        recorded = json.loads(path.read_text()) if path.exists() else []
        return [[pid, begun] for pid, begun in recorded if begun != GONE]

    def down(self) -> None:
        for pid in reversed(self.pids()):  # the server before what it stands on
            stop(pid, self.stop_signal)
        (self.dir / "processes.json").unlink(missing_ok=True)

    def kill(self) -> None:
        if pid := self.server_pid():
            os.killpg(pid, signal.SIGKILL)  # it was started as the leader of its own session
            wait_gone(pid)

    def empty(self) -> None:
        self.down()
        shutil.rmtree(self.data, ignore_errors=True)

    def run(self, command: list[str]) -> int:
        """Run a tool of the server as the server runs; return its exit code."""
        environment = {**bare_environment(), **self.environment()}
        environment["PATH"] = f"{Path(self.program).parent}:{environment['PATH']}"
        return subprocess.run(
            [*self.become(), *command], env=environment, cwd=self.data, check=False
        ).returncode

    def wipe(self) -> None:
        self.down()
        shutil.rmtree(self.dir, ignore_errors=True)


class Group(NamedTuple):
    """Servers that are one topology: started one after the other, ended in the reverse order."""

    members: tuple[type[Server], ...]
    settings: Callable[[], dict[str, str]]
    """Returns the settings of this project that reach the topology as a whole."""
