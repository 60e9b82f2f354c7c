"""A cache with Sentinels fails over while orders come in: none is lost, doubled or denied.

Two API processes place and read; each may be with another server for a moment.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import pytest_asyncio

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from tests.support.eventually import eventually, eventually_true
from tests.support.own_valkey import OwnValkey
from tests.support.proxy import Proxy
from tests.support.redis_ha import RedisHa, redis_ha, send
from tests.support.stand import HEALED_SECONDS, Program, Stand, stand_on

pytestmark = pytest.mark.timeout(240)

ACKED = 40
"""Orders between two steps."""
LATEST = 50
"""A reader reads one of so many that were acknowledged last."""
USED_AGAIN_SECONDS = 10.0
"""Stated in docs/ops.md, from the promotion on."""


@pytest_asyncio.fixture
async def stand(postgres_server: EmbeddedPostgres) -> AsyncIterator[Stand]:
    async with stand_on(postgres_server) as stand:
        yield stand


@pytest_asyncio.fixture
async def cache(stand: Stand) -> AsyncIterator[RedisHa]:
    async with redis_ha() as cache:
        stand.environment["REDIS_ADDR"] = cache.url
        yield cache


class Clients:
    """Clients of two API processes, which place orders and read what was acknowledged."""

    def __init__(self, *apis: Program) -> None:
        self.apis = apis
        self.acked: dict[str, str] = {}
        """Product name by order id."""
        self.statuses: Counter[int] = Counter()
        self._ended = False

    async def more_acked(self, orders: int = ACKED) -> None:
        """Return once so many more orders were acknowledged."""
        wanted = len(self.acked) + orders
        await eventually_true(lambda: len(self.acked) >= wanted, HEALED_SECONDS, "more orders")

    async def place(self, api: Program) -> None:
        """Place orders until the end."""
        number = 0
        while not self._ended:
            name = f"{api.port}-{(number := number + 1)}"
            answer = await api.place(name)
            self.statuses[answer.status] += 1
            assert answer.status in (202, 503, 504), answer
            if answer.status == 202:
                self.acked[answer.json["order_id"]] = name

    async def read(self, api: Program) -> None:
        """Read until the end; no acknowledged order is ever denied."""
        while not self._ended:
            if not self.acked:
                await asyncio.sleep(0)
                continue
            order_id = random.choice(list(self.acked)[-LATEST:])
            status = await api.read(order_id)
            assert status in (200, 503), f"{status} for an acknowledged order"

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Place and read meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            for api in self.apis:
                tasks.create_task(self.place(api))
                tasks.create_task(self.read(api))
            yield
            self._ended = True


@asynccontextmanager
async def clients_of(stand: Stand) -> AsyncIterator[Clients]:
    stand.worker()
    clients = Clients(await stand.api(), await stand.api())
    async with clients.at_work():
        await clients.more_acked()
        yield clients
    for api in clients.apis:
        await api.is_warm()
    await eventually(partial(all_kept, stand, clients), within_seconds=HEALED_SECONDS)


async def all_kept(stand: Stand, clients: Clients) -> None:
    """Fail unless each acknowledged order is in the record once."""
    rows = await stand.record.rows("SELECT id::text, product_name FROM orders")
    assert clients.acked.items() <= dict(rows).items()
    assert await stand.record.value("SELECT count(*) FROM dead_letters") == 0


async def used_again(clients: Clients, within: float = USED_AGAIN_SECONDS) -> None:
    """Wait until every process uses the cache."""
    begun = time.monotonic()
    for api in clients.apis:
        await api.reaches(cache=True, within=within)
    print(f"used again after {time.monotonic() - begun:.1f} s; {dict(clients.statuses)}")


# --- what happens to the primary ---


async def killed(cache: RedisHa, clients: Clients) -> None:
    primary = await cache.primary()
    await primary.kill()
    await cache.promoted(primary)
    await used_again(clients)
    await primary.start()


async def killed_while_the_first_sentinel_is_away(cache: RedisHa, clients: Clients) -> None:
    await cache.sentinels[0].kill()
    primary = await cache.primary()
    await primary.kill()
    await cache.promoted(primary)
    await used_again(clients)
    await primary.start()
    await cache.sentinels[0].start(primary)


async def frozen(cache: RedisHa, clients: Clients) -> None:
    primary = await cache.freeze()
    await cache.promoted(primary)
    await used_again(clients)
    send(primary, signal.SIGCONT)


async def isolated(cache: RedisHa, clients: Clients) -> None:
    """Its clients reach it as before, and it takes their orders; it is not demoted."""
    primary = await cache.isolate()
    await cache.promoted(primary)
    await used_again(clients)
    await clients.more_acked()
    await cache.reconnect(primary)


FAULTS = [killed, killed_while_the_first_sentinel_is_away, frozen, isolated]


@pytest.mark.parametrize("is_cut_off", [False, True], ids=["in sync", "cut off"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_primary_is_lost(
    stand: Stand,
    cache: RedisHa,
    fault: Callable[[RedisHa, Clients], Awaitable[None]],
    is_cut_off: bool,
) -> None:
    """The replica is promoted, also one that lacks the last orders."""
    async with clients_of(stand) as clients:
        if is_cut_off:
            await cache.cut_off_replica()
            await clients.more_acked()
        await fault(cache, clients)
        await clients.more_acked()
        await cache.let_replicate()
        await cache.whole()
        await clients.more_acked()


async def test_two_planned_exchanges(stand: Stand, cache: RedisHa) -> None:
    """No server is lost, and each is the primary again."""
    async with clients_of(stand) as clients:
        for _ in range(2):
            await cache.switch_over()
            await used_again(clients)
            await clients.more_acked()
            await cache.whole()


async def test_a_primary_is_lost_twice(stand: Stand, cache: RedisHa) -> None:
    """The second time, the one that was lost first takes over."""
    async with clients_of(stand) as clients:
        for _ in range(2):
            await killed(cache, clients)
            await cache.whole()
            await clients.more_acked()


@pytest.mark.parametrize("fault", [killed, isolated], ids=lambda fault: fault.__name__)
async def test_nothing_that_the_cache_alone_holds_is_lost(
    stand: Stand, cache: RedisHa, fault: Callable[[RedisHa, Clients], Awaitable[None]]
) -> None:
    """The queue is away: what the replica lacks is not acknowledged."""
    worker = stand.worker()  # the cache may have to be made warm first
    clients = Clients(await stand.api(), await stand.api())
    worker.send(signal.SIGKILL)
    await worker.ended()
    async with clients.at_work():
        await stand.queue_link.cut()
        for api in clients.apis:
            await api.reaches(queue=False)
        await clients.more_acked()
        await cache.cut_off_replica()
        unknown = clients.statuses[504]
        await eventually_true(lambda: clients.statuses[504] > unknown + 3, what="a refusal")
        primary = await cache.primary()
        if fault is killed:
            await primary.kill()
        else:
            await cache.isolate()
        await cache.promoted(primary)
        await used_again(clients)
        await cache.let_replicate()
        if fault is killed:
            await primary.start()
        else:
            await cache.reconnect(primary)
        await cache.whole()
        await clients.more_acked()
    stand.worker()
    await eventually(partial(all_kept, stand, clients), within_seconds=HEALED_SECONDS)


# --- what a process sees that has not heard of it yet ---


async def test_a_reader_with_the_former_primary_denies_nothing(stand: Stand) -> None:
    """Nobody persists, and no worker ends a cold time: the order is in the new one alone."""
    async with AsyncExitStack() as resources:
        link = Proxy("127.0.0.1", stand.cache.port)
        await link.start()
        resources.push_async_callback(link.stop)
        late = await stand.api()
        early = await stand.api(REDIS_ADDR=f"redis://127.0.0.1:{link.port}/0")
        replica, _ = await stand.replica()
        for api in (late, early):  # a first replica begins a reign
            assert (await api.place()).status == 202
        await is_warm_by_a_worker(stand, late, early)
        await moved(link, replica)
        await early.reaches(cache=True)
        order_id = (await early.place()).json["order_id"]
        assert await replica.say("EXISTS", f"polyglot:order:{order_id}") == 1
        assert await stand.cache.say("EXISTS", f"polyglot:order:{order_id}") == 0
        assert await late.read(order_id) == 503
        assert await early.read(order_id) == 200


async def is_warm_by_a_worker(stand: Stand, *apis: Program) -> None:
    """Have a worker make the cache warm, and end it."""
    worker = stand.worker()
    for api in apis:
        await api.is_warm()
    worker.send(signal.SIGKILL)
    await worker.ended()


async def moved(link: Proxy, replica: OwnValkey) -> None:
    """Promote a replica, and lead a process to it; the former primary goes on."""
    await replica.lead()
    await link.cut()
    link.lead_to("127.0.0.1", replica.port)
    link.restore()
