"""API and worker on a PostgreSQL with a standby: a failover is over in ten seconds, and heals."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytest_asyncio

from polyglot_persistence.embedded.valkey import EmbeddedValkey
from tests.support.api import Api
from tests.support.eventually import eventually
from tests.support.processes import Process, free_port, started
from tests.support.record import onlooker
from tests.support.servers import running, short_directory
from tests.support.standby import Pair, pair_of_servers

pytestmark = pytest.mark.timeout(240)

WITHIN_SECONDS = 60.0
PERSISTED_SECONDS = 10.0
"""From the promotion on, until an order that was accepted before is persisted."""

LOST = 1_000
HEALED_SECONDS = 60.0
"""From the promotion on, until everything that was lost is persisted again."""

PYTHON = (sys.executable, "-m", "polyglot_persistence")


class Service:
    """API and worker as processes, whose DSN names both servers."""

    def __init__(self, pair: Pair, api: Api, environment: Mapping[str, str]) -> None:
        self.pair = pair
        self.api = api
        self.environment = environment
        self.worker: Process

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
            service = Service(pair, api, environment)
            with (
                started([*PYTHON, "worker"], environment=environment) as service.worker,
                started([*PYTHON, "api"], environment=environment),
            ):
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


async def place(service: Service, orders: int) -> list[str]:
    """Place orders in bulks; return their ids."""
    ids: list[str] = []
    while len(ids) < orders:
        bulk = [{"product_name": f"Milk {n % 7}", "amount": f"{n}.25"} for n in range(50)]
        answer = await service.api.request("POST", "/api/bulk-orders", {"orders": bulk})
        assert answer.status == 202, answer
        ids += answer.json["order_ids"]
    return ids


async def all_done(dsn: str, orders: int) -> None:
    """Wait until a server has so many orders, and all of them are indexed."""
    async with onlooker(dsn) as there:

        async def attempt() -> None:
            assert await there.value("SELECT count(*) FROM orders") == orders
            assert not await there.value("SELECT count(*) FROM index_outbox")

        await eventually(attempt, within_seconds=WITHIN_SECONDS)


async def missing(dsn: str, ids: list[str]) -> int:
    """Return how many of the orders a server lacks."""
    async with onlooker(dsn) as there:
        found = await there.value("SELECT count(*) FROM orders WHERE id = ANY ($1::uuid[])", ids)
    return len(ids) - int(found)


async def audited(service: Service) -> Mapping[str, object]:
    """Let all stores be compared by the command; return what was found."""
    with started([*PYTHON, "audit", "--json"], environment=service.environment) as process:
        code = await process.ended(WITHIN_SECONDS)
        assert code in (0, 1), process.log()[-3000:]
        report: Mapping[str, object] = json.loads(process.output())
    return {"clean": code == 0, **report}


@pytest.mark.parametrize("worker", ["running", "started after it"])
async def test_an_asynchronous_failover_heals_by_itself(service: Service, worker: str) -> None:
    """A standby that lacks 1,000 persisted orders is promoted while orders come in.

    Each of them is read as before all the time; at the end all stores agree.
    """
    pair = service.pair
    await pair.caught_up()
    await pair.cut_off()
    lost = await place(service, LOST)
    await all_done(pair.primary.dsn, 1 + LOST)
    if worker != "running":
        service.worker.send(signal.SIGTERM)
        assert await service.worker.ended() == 0
    accepted: list[str] = []
    is_healed = asyncio.Event()

    async def load() -> None:
        while not is_healed.is_set():
            accepted.extend(await place(service, 50))

    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(load())
        await pair.primary.killed()
        await pair.standby.promote()
        promoted = time.monotonic()
        assert await missing(pair.standby.dsn, lost) == LOST
        with (
            nullcontext()
            if worker == "running"
            else started([*PYTHON, "worker"], environment=service.environment)
        ):

            async def healed() -> None:
                for order_id in lost[:: LOST // 5]:
                    answer = await service.api.request("GET", f"/api/orders/{order_id}")
                    assert answer.status == 200, answer
                assert await missing(pair.standby.dsn, lost) == 0

            try:
                await eventually(healed, within_seconds=HEALED_SECONDS)
            finally:
                is_healed.set()
            seconds = time.monotonic() - promoted
            await loading
            print(f"{LOST} lost orders healed in {seconds:.1f} s, {len(accepted)} came in")
            await all_done(pair.standby.dsn, 1 + LOST + len(accepted))
            async with onlooker(pair.standby.dsn) as there:
                await there.assert_rollup_exact()
            report = await audited(service)
            assert report["clean"], report
