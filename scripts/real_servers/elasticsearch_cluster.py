"""An Elasticsearch cluster of three nodes, each with the smallest heap that tests get along with.

The first node founds the cluster; the others join it.
"""

import json
import time
import urllib.request

from real_servers.kinds import Elasticsearch
from real_servers.machine import ServerError
from real_servers.server import START_SECONDS, Group

HEAP = "384m"


class ElasticsearchA(Elasticsearch):
    """The node that founds the cluster."""

    name = "elasticsearch-a"
    variable = "ELASTICSEARCH_A"
    started_by_name_only = True
    member_options: tuple[str, ...] = ("--founder",)

    def options(self) -> list[str]:
        seeds = [f"127.0.0.1:{member.port('transport')}" for member in known_members()]
        return [
            f"--heap={HEAP}",
            "--cluster=polyglot-3",
            f"--seeds={','.join(seeds)}",
            *self.member_options,
        ]

    def settings(self) -> dict[str, str]:
        return {f"{self.variable}_URL": f"http://127.0.0.1:{self.port()}"}


class ElasticsearchB(ElasticsearchA):
    """A node that joins."""

    name = "elasticsearch-b"
    variable = "ELASTICSEARCH_B"
    member_options = ()

    def up(self) -> None:
        """Start, and wait until the cluster has a master."""
        super().up()
        deadline = time.monotonic() + START_SECONDS
        url = f"http://127.0.0.1:{self.port()}/_cluster/health?wait_for_status=yellow&timeout=4s"
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=10) as response:
                    if not json.load(response)["timed_out"]:
                        return
            except OSError:
                time.sleep(0.2)
        raise ServerError(f"{self.name}: the cluster is not healthy")


class ElasticsearchC(ElasticsearchB):
    """One more."""

    name = "elasticsearch-c"
    variable = "ELASTICSEARCH_C"


MEMBERS = (ElasticsearchA, ElasticsearchB, ElasticsearchC)


def known_members() -> list[ElasticsearchA]:
    """Return the nodes that have ports, whether they run or not."""
    return [node for kind in MEMBERS if ((node := kind()).dir / "ports.json").exists()]


def settings() -> dict[str, str]:
    """Return one address of all nodes that were ever started."""
    places = [f"127.0.0.1:{node.port()}" for node in known_members()]
    return {"ELASTICSEARCH_URL": f"http://{','.join(places)}"}


ELASTICSEARCH_3 = Group(MEMBERS, settings)
