"""API and worker on a PostgreSQL with a standby: a failover is over in ten seconds."""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytest_asyncio

from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support.api import Api
from tests.support.eventually import eventually
from tests.support.processes import free_port, started
from tests.support.servers import running, short_directory
from tests.support.standby import Pair, pair_of_servers

pytestmark = pytest.mark.timeout(240)

WITHIN_SECONDS = 60.0
PERSISTED_SECONDS = 10.0
"""From the promotion on, until an order that was accepted before is persisted."""


class Service:
    """API and worker as processes, whose DSN names both servers."""

    def __init__(self, pair: Pair, api: Api) -> None:
        self.pair = pair
        self.api = api

    async def reads_normal(self) -> None:
        assert (await self.api.request("GET", "/health/ready")).json["mode"] == "normal"

    async def is_persisted(self, order_id: str) -> None:
        answer = await self.api.request("GET", f"/api/orders/{order_id}/status")
        assert answer.json["status"] in ("persisted", "searchable"), answer


@pytest_asyncio.fixture
async def service(stopped_postgres: Path) -> AsyncIterator[Service]:
    with short_directory() as directory:
        async with (
            pair_of_servers(stopped_postgres) as pair,
            running(EmbeddedValkey(directory / "valkey")) as valkey,
        ):
            api = Api(free_port())
            environment = {
                "POSTGRES_DSN": pair.dsn,
                "REDIS_ADDR": valkey.url,
                "RABBITMQ_URL": valkey.url,
                "ELASTICSEARCH_URL": f"tantivy://{directory}/search",
                "API_HOST": "127.0.0.1",
                "API_PORT": str(api.port),
            }
            python = [sys.executable, "-m", "polyglot_persistence"]
            with (
                started([*python, "worker"], environment=environment),
                started([*python, "api"], environment=environment),
            ):
                service = Service(pair, api)
                retried = (OSError, AssertionError)
                await eventually(
                    service.reads_normal, within_seconds=WITHIN_SECONDS, retried=retried
                )
                order_id = await api.order("Milk", "1.50")
                await until_persisted(service, order_id, WITHIN_SECONDS)
                yield service


async def until_persisted(service: Service, order_id: str, seconds: float) -> None:
    async def look() -> None:
        await service.is_persisted(order_id)

    await eventually(look, within_seconds=seconds, retried=(AssertionError, KeyError))


@pytest.mark.parametrize("frozen", [False, True], ids=["killed", "frozen"])
async def test_a_failover_is_over_in_time(service: Service, frozen: bool) -> None:
    """Orders are accepted meanwhile, and persisted by the new primary."""
    pair = service.pair
    await pair.caught_up()
    if not frozen:
        await pair.primary.killed()
    with pair.primary.frozen() if frozen else nullcontext():
        accepted = [await service.api.order("Milk", "2.50") for _ in range(20)]
        await pair.standby.promote()
        promoted = time.monotonic()
        for order_id in accepted:
            left = PERSISTED_SECONDS - (time.monotonic() - promoted)
            await until_persisted(service, order_id, left)
        await eventually(service.reads_normal, within_seconds=PERSISTED_SECONDS)


async def test_after_a_restart_of_the_primary_orders_are_persisted_by_it(service: Service) -> None:
    """It is away for three seconds, in which the standby answers."""
    pair = service.pair
    await pair.primary.stop()
    stopped = time.monotonic()
    accepted = []
    while time.monotonic() - stopped < 3.0:
        accepted.append(await service.api.order("Milk", "2.50"))
    await pair.primary.start()
    back = time.monotonic()
    for order_id in (*accepted[:5], *accepted[-5:]):
        await until_persisted(service, order_id, PERSISTED_SECONDS - (time.monotonic() - back))
    await eventually(service.reads_normal, within_seconds=PERSISTED_SECONDS)
