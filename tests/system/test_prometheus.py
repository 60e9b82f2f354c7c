"""A real Prometheus scrapes a real API and worker: every rule and every panel has an answer."""

import asyncio
import json
import shutil
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from scripts import grafana
from tests.support.documents import ROOT
from tests.support.processes import eventually, free_port, polyglot_up, started
from tests.support.servers import short_directory

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed"
    ),
]

SCRAPE = "1s"
WINDOW = "10s"
"""In place of Grafana's `$__rate_interval`."""

SILENT = {"Alerts", "Nodes of the queue"}
"""Panels that show nothing while all is well, or with the bundled queue, which has no nodes."""


def config(ports: dict[str, int]) -> dict[str, Any]:
    """Return the configuration that is shipped, with these targets, and in more of a hurry."""
    path = ROOT / "deploy" / "prometheus" / "prometheus.yml"
    shipped: dict[str, Any] = yaml.safe_load(path.read_text())
    shipped["global"] = {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE}
    shipped["rule_files"] = [str(path.parent / name) for name in shipped["rule_files"]]
    shipped["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for job, port in ports.items()
    ]
    return shipped


@asynccontextmanager
async def prometheus(directory: Path, ports: dict[str, int]) -> AsyncIterator["Prometheus"]:
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config(ports)))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with started(command) as process:
        asked = Prometheus(port)
        await eventually(lambda: asked.ready() or process.code is not None, what="Prometheus")
        assert process.code is None, process.log()
        yield asked


class Prometheus:
    """Prometheus's HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            with urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[Any]:
        """Return the series that an expression has now; a wrong one fails the test."""
        query = urllib.parse.urlencode({"query": expression})
        with urlopen(f"{self._url}/api/v1/query?{query}", timeout=10) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        with urlopen(f"{self._url}/api/v1/rules", timeout=10) as answer:
            groups = json.load(answer)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def unanswered(asked: Prometheus) -> list[str]:
    """Return the questions of the dashboard that have no series."""
    return [
        f"{panel['title']}: {target['expr']}"
        for panel in grafana.dashboard()["panels"]
        for target in panel.get("targets", [])
        if panel["title"] not in SILENT
        and not asked.query(target["expr"].replace("$__rate_interval", WINDOW))
    ]


async def test_rules_and_panels_have_answers() -> None:
    """After some orders, reads and searches every panel has data, and no rule fails or fires."""
    worker_port = free_port()
    with short_directory() as directory:
        environment = {"WORKER_PORT": str(worker_port)}
        async with polyglot_up(directory / ".data", environment=environment) as up:
            ports = {"api": up.port, "worker": worker_port}
            async with prometheus(directory, ports) as asked:
                await eventually(lambda: len(asked.query("up == 1")) == 2, what="both scraped")
                async with asyncio.timeout(150):
                    while missing := await asyncio.to_thread(unanswered, asked):
                        order_id = await up.order()
                        await up.request("GET", f"/api/orders/{order_id}")
                        await up.request("GET", "/api/search?q=milk")
                        print(len(missing), missing[:3])
                rules = asked.rules()
    shipped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert len(rules) == sum(len(group["rules"]) for group in shipped["groups"])
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
