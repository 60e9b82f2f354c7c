"""Two of three RabbitMQ nodes are lost, and come back: orders are taken all the while."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.addresses import BUNDLED, RABBITMQ, needs
from tests.support.api import Answer
from tests.support.deployments import OnServers
from tests.support.eventually import eventually
from tests.support.rabbitmq_cluster import Cluster, running_cluster
from tests.support.record import onlooker
from tests.support.servers import flush, fresh_database

ORDER = {"product_name": "Milk", "amount": "1.25"}
NOTICED_SECONDS = 60.0

pytestmark = [needs(RABBITMQ), BUNDLED, pytest.mark.timeout(900)]


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster("abc") as cluster:
        yield cluster


@pytest_asyncio.fixture
async def deployment(
    cluster: Cluster, postgres_address: str, redis_address: str, tmp_path: Path
) -> AsyncIterator[OnServers]:
    """API and workers that know all three nodes."""
    await flush(redis_address)
    async with fresh_database(postgres_address) as postgres:
        deployment = OnServers(
            {
                "POSTGRES_DSN": postgres,
                "REDIS_ADDR": redis_address,
                "RABBITMQ_URL": cluster.url,
                "ELASTICSEARCH_URL": f"tantivy://{tmp_path}/search",
            }
        )
        try:
            await deployment.start()
            yield deployment
        finally:
            deployment.close()


async def placed(deployment: OnServers, orders: list[str]) -> Answer:
    answer = await deployment.request("POST", "/api/orders", ORDER)
    assert answer.status == 202, answer
    orders.append(answer.json["order_id"])
    return answer


def missing(answer: Answer) -> str:
    return {name.lower(): value for name, value in answer.headers.items()}.get("x-degraded", "")


async def test_orders_are_taken_without_a_majority_and_none_is_lost(
    cluster: Cluster, deployment: OnServers
) -> None:
    """With the cache's copy alone, as the answer says; with both again after the nodes' return."""
    orders: list[str] = []
    for _ in range(10):
        assert missing(await placed(deployment, orders)) == ""
    await cluster.kill("a", "b")

    async def is_degraded() -> None:
        assert missing(await placed(deployment, orders)) == "queue"

    await eventually(is_degraded, within_seconds=NOTICED_SECONDS)
    for _ in range(10):
        await is_degraded()
    await cluster.up("a", "b")

    async def is_normal() -> None:
        assert missing(await placed(deployment, orders)) == ""

    await eventually(is_normal, within_seconds=NOTICED_SECONDS)
    for order_id in orders:
        await deployment.persisted(order_id)
    async with onlooker(deployment.environment["POSTGRES_DSN"]) as seen:
        rows = await seen.rows("SELECT id::text FROM orders")
    assert sorted(rows) == sorted((order_id,) for order_id in orders)
