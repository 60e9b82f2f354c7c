"""A RabbitMQ cluster of up to three nodes, for what a single broker cannot be brought to do.

The first node must be up before the others join it. It also has the port mapper of all, which stays
when the node alone is killed. A minority of the nodes pauses; a test that needs an answering one
changes that in the running nodes.
"""

import secrets

from real_servers.kinds import RabbitMQ
from real_servers.machine import ServerError
from real_servers.server import Group


class RabbitMQA(RabbitMQ):
    """The first node."""

    name = "rabbitmq-a"
    variable = "RABBITMQ_A"
    started_by_name_only = True

    def prepare(self) -> None:
        super().prepare()
        with (self.data / "rabbitmq.conf").open("a") as config:
            config.write(
                "cluster_partition_handling = pause_minority\nqueue_leader_locator = balanced\n"
                "net_ticktime = 15\n"  # seconds until a frozen node counts as gone
            )
        cookie = self.data / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self.secret())
            cookie.chmod(0o400)

    def secret(self) -> str:
        """Return the secret by which the nodes of the cluster know one another."""
        return secrets.token_hex(20)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "RABBITMQ_NODENAME": f"{self.name}@localhost"}


class RabbitMQB(RabbitMQA):
    """A node that joins the first."""

    name = "rabbitmq-b"
    variable = "RABBITMQ_B"
    first = RabbitMQA

    def up(self) -> None:
        joined = self.data / "joined"
        if not joined.exists() and not self.first().server_pid():
            raise ServerError(f"start {self.first.name} before {self.name}")
        super().up()
        if joined.exists():
            return
        node = self.first().environment()["RABBITMQ_NODENAME"]
        for words in (["stop_app"], ["reset"], ["join_cluster", node], ["start_app"]):
            if self.run(["rabbitmqctl", "-q", *words]):
                raise ServerError(f"{self.name}: rabbitmqctl {' '.join(words)} failed")
        joined.touch()

    def secret(self) -> str:
        return (self.first().data / ".erlang.cookie").read_text()

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "ERL_EPMD_PORT": str(self.first().port("epmd"))}

    def commands(self) -> list[list[str]]:
        return super().commands()[1:]


class RabbitMQC(RabbitMQB):
    """One more."""

    name = "rabbitmq-c"
    variable = "RABBITMQ_C"


MEMBERS = (RabbitMQA, RabbitMQB, RabbitMQC)


def settings() -> dict[str, str]:
    """Return one address of all nodes that were ever started, and one of their management."""
    nodes = [node for kind in MEMBERS if ((node := kind()).dir / "ports.json").exists()]
    brokers = [f"127.0.0.1:{node.port()}" for node in nodes]
    pages = [f"127.0.0.1:{node.port('management')}" for node in nodes]
    return {
        "RABBITMQ_URL": f"amqp://guest:guest@{','.join(brokers)}/",
        "RABBITMQ_MANAGEMENT_URL": f"http://{','.join(pages)}",
    }


RABBITMQ_3 = Group(MEMBERS, settings)
