"""The servers: what each needs, how it is configured, and how one sees that it answers."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from real_servers.machine import ServerError, install, mirror, run, talk, wait_gone, wait_left
from real_servers.server import REPOSITORY, START_SECONDS, Server, root_dir


class Redis(Server):
    name = "redis"
    packages = ("redis-server",)
    program = "/usr/bin/redis-server"
    user = "redis"

    def prepare(self) -> None:
        (self.data / "redis.conf").write_text(
            f"port {self.port()}\nbind 127.0.0.1\ndaemonize no\ndir {self.data}\n"
            'appendonly yes\nappendfsync always\nno-appendfsync-on-rewrite no\nsave ""\n'
            "maxmemory 1gb\nmaxmemory-policy volatile-ttl\n"
        )

    def commands(self) -> list[list[str]]:
        return [[self.program, str(self.data / "redis.conf")]]

    def answers(self) -> bool:
        return talk(self.port(), b"PING\r\n").startswith(b"+PONG")

    def settings(self) -> dict[str, str]:
        return {"REDIS_ADDR": f"127.0.0.1:{self.port()}"}


class Postgres(Server):
    name = "postgres"
    packages = ("postgresql",)
    user = "postgres"
    stop_signal = signal.SIGINT  # else it waits until the last client has gone

    @property
    def program(self) -> str:  # type: ignore[override]
        found = sorted(
            Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3])
        )
        return str(found[-1]) if found else "/usr/lib/postgresql"

    def prepare(self) -> None:
        cluster = self.data / "cluster"
        if (cluster / "PG_VERSION").exists():
            # It would believe that a killed one still runs, as long as nobody buries that process.
            wait_left(cluster)
            (cluster / "postmaster.pid").unlink(missing_ok=True)
            return
        password = self.data / "password"
        password.write_text("secret\n")
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{self.user}:", str(self.data)], check=True)
        run(
            [
                *self.become(),
                str(Path(self.program).with_name("initdb")),
                "-D",
                "cluster.new",
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                "--pwfile=password",
                "-E",
                "UTF8",
                "--locale=C",
            ],
            cwd=self.data,
        )
        run(
            [*self.become(), self.program, "--single", "-D", "cluster.new", "postgres"],
            cwd=self.data,
            text="CREATE DATABASE ecommerce\n",
        )
        (self.data / "cluster.new").rename(self.data / "cluster")

    def options(self) -> dict[str, str]:
        return {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port()),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",
        }

    def commands(self) -> list[list[str]]:
        words = [word for pair in self.options().items() for word in ("-c", "=".join(pair))]
        return [[self.program, "-D", str(self.data / "cluster"), *words]]

    def answers(self) -> bool:
        isready = str(Path(self.program).with_name("pg_isready"))
        command = [isready, "-q", "-h", "127.0.0.1", "-p", str(self.port())]
        return subprocess.run(command, check=False).returncode == 0

    def settings(self) -> dict[str, str]:
        return {"POSTGRES_DSN": f"postgresql://postgres:secret@127.0.0.1:{self.port()}/ecommerce"}


class RabbitMQ(Server):
    name = "rabbitmq"
    packages = ("rabbitmq-server",)
    program = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    user = "rabbitmq"
    ports = ("main", "management", "distribution", "epmd")
    variable = "RABBITMQ"

    @property
    def inside(self) -> Path:
        """Where the server itself sees its data directory."""
        return self.data

    def prepare(self) -> None:
        (self.data / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port()}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.port('management')}\n"
            "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 100MB\n"
            "log.console = true\nlog.file = false\n"
        )
        (self.data / "enabled_plugins").write_text("[rabbitmq_management].\n")

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.inside),
            "RABBITMQ_NODENAME": "polyglot@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port()),
            "RABBITMQ_DIST_PORT": str(self.port("distribution")),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.inside / "rabbitmq"),
            "RABBITMQ_MNESIA_BASE": str(self.inside / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.inside / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.inside / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.inside / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ("-kernel inet_dist_use_interface {127,0,0,1}"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.port("epmd")),
        }

    def commands(self) -> list[list[str]]:
        # A port mapper of its own, started first: else the server would leave a shared one behind.
        return [["/usr/bin/epmd"], [self.program]]

    def answers(self) -> bool:
        return talk(self.port(), b"AMQP\x00\x00\x09\x01").startswith(b"\x01")  # Connection.Start

    def settings(self) -> dict[str, str]:
        return {
            f"{self.variable}_URL": f"amqp://guest:guest@127.0.0.1:{self.port()}/",
            f"{self.variable}_MANAGEMENT_URL": (
                f"http://guest:guest@127.0.0.1:{self.port('management')}"
            ),
        }


class RabbitMQ4(RabbitMQ):
    """RabbitMQ 4 out of Debian trixie, in a root directory of its own."""

    name = "rabbitmq4"
    packages = ("debootstrap",)
    user = ""  # it changes user inside of its root
    variable = "RABBITMQ4"

    @property
    def inside(self) -> Path:
        return Path("/srv")

    @property
    def system(self) -> Path:
        return root_dir() / "trixie"

    def install(self) -> None:
        if os.geteuid() != 0:
            raise ServerError(f"{self.name} needs root, to have a Debian trixie in a directory")
        if self.system.exists():
            return
        if not shutil.which("debootstrap"):
            install(*self.packages)
        unfinished = self.system.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=rabbitmq-server",
                "trixie",
                str(unfinished),
                mirror(),
            ],
        )
        unfinished.rename(self.system)

    def prepare(self) -> None:
        super().prepare()
        shutil.copy("/etc/hosts", self.system / "etc" / "hosts")
        # Root here and root there number their users differently; the data is the latter's.
        run(["chroot", str(self.system), "chown", "rabbitmq:", "/srv"])
        owner = (self.system / "srv").stat()
        for path in (self.data, *self.data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def commands(self) -> list[list[str]]:
        # In a mount namespace of its own, so that no mount is left behind when it ends.
        script = (
            f"mount --rbind /proc {self.system}/proc && mount --rbind /dev {self.system}/dev && "
            f"mount --bind {self.data} {self.system}/srv && exec chroot {self.system} "
            "setpriv --reuid=rabbitmq --regid=rabbitmq --clear-groups "
        )
        return [
            ["unshare", "--mount", "--propagation=private", "sh", "-c", script + program]
            for program in ("/usr/bin/epmd", self.program)
        ]


class Elasticsearch(Server):
    name = "elasticsearch"
    packages = ("openjdk-17-jre-headless", "maven", "curl", "procps")
    ports = ("main", "transport")

    def install(self) -> None:
        missing = {"java": 0, "mvn": 1, "curl": 2, "ps": 3}
        wanted = [self.packages[i] for tool, i in missing.items() if not shutil.which(tool)]
        if wanted:
            install(*wanted)

    def up(self) -> None:
        self.install()
        self.dir.mkdir(parents=True, exist_ok=True)
        if not self.server_pid():
            self.choose_ports()
        self.script("start")

    def down(self) -> None:
        if (self.dir / "ports.json").exists():
            self.script("stop")

    def kill(self) -> None:
        if pid := self.server_pid():
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)

    def server_pid(self) -> int | None:
        """Return the process that the script's own pid file names, if it is that server."""
        path = self.data / "elasticsearch.pid"
        text = path.read_text().strip() if path.exists() else ""
        pid = int(text) if text.isdigit() else 0  # a power loss leaves the file empty
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return None
        return pid if b"org.elasticsearch." in words else None

    def script(self, command: str) -> None:
        run(
            [
                str(REPOSITORY / "scripts" / "elasticsearch" / "run-elasticsearch"),
                command,
                f"--port={self.port()}",
                f"--transport-port={self.port('transport')}",
                f"--data-dir={self.data}",
                f"--cache-dir={root_dir() / 'elasticsearch-servers'}",
                f"--timeout={START_SECONDS}",
                *self.options(),
            ],
        )

    def options(self) -> list[str]:
        """Return further options of the script."""
        return []

    def answers(self) -> bool:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return talk(self.port(), request).startswith(b"HTTP/1.1 200")

    def settings(self) -> dict[str, str]:
        return {"ELASTICSEARCH_URL": f"http://127.0.0.1:{self.port()}"}
