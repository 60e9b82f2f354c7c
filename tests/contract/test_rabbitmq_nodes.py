"""The queue over a RabbitMQ cluster of three nodes, all of which are in its address."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.bootstrap.doctor import examine
from polyglot_persistence.config import load
from polyglot_persistence.domain import codec
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import QUEUE_NAME, Message
from polyglot_persistence.telemetry import REGISTRY
from tests.support.addresses import RABBITMQ, needs
from tests.support.eventually import eventually, look_again
from tests.support.orders import START
from tests.support.queue_messages import numbered, numbers
from tests.support.queues import delete_queue
from tests.support.rabbitmq_cluster import Cluster, running_cluster

AWAY = (UnavailableError, UnknownOutcomeError)
MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)
NODES = "abc"
CONNECT_SECONDS = 3.0
RECOVERY_SECONDS = 120.0

pytestmark = [
    needs(RABBITMQ),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """Three nodes, of which the first was alone when `QUEUE_NAME` was declared."""
    async with running_cluster(NODES, joined="a") as cluster:
        async with queue_at(cluster.urls["a"], QUEUE_NAME) as queue:
            await queue.ready()
        for node in "bc":
            await cluster.up(node)
        yield cluster


@asynccontextmanager
async def queue_at(url: str, name: str) -> AsyncIterator[RabbitMQQueue]:
    queue = RabbitMQQueue(
        url,
        queue=name,
        connect_timeout_seconds=CONNECT_SECONDS,
        publish_timeout_seconds=CONNECT_SECONDS,
    )
    try:
        yield queue
    finally:
        await queue.close()


def members_gauge(kind: str) -> float | None:
    return REGISTRY.get_sample_value("polyglot_queue_members", {"kind": kind})


async def queue_findings(cluster: Cluster, **settings: str) -> list[tuple[str, str, str]]:
    found = await examine(load({"RABBITMQ_URL": cluster.url, **settings}))
    return [(one.level, one.detail, one.fix) for one in found if one.store == "queue"]


async def test_doctor_names_the_missing_members_and_the_commands_that_make_them(
    cluster: Cluster,
) -> None:
    """A queue that was declared early stays on one node; the command given heals it."""
    assert await cluster.members(QUEUE_NAME) == "a"
    (passed, *_), unseen = await queue_findings(cluster)
    assert passed == "PASS"
    assert unseen[0] == "WARN"
    assert unseen[2] == "set RABBITMQ_MANAGEMENT_URL"
    passing, told = await queue_findings(cluster, RABBITMQ_MANAGEMENT_URL=cluster.management_url)
    assert passing[1].startswith("RabbitMQ 3.")
    assert passing[1].rpartition(" at ")[2] in {cluster.place(node) for node in NODES}
    assert told[0] == "WARN"
    assert told[1].startswith("order_queue has 1 of 3 members (rabbitmq-a@localhost): ")
    assert (members_gauge("online"), members_gauge("wanted")) == (1, 3)
    for command in told[2].removeprefix("run ").split(" && "):
        await cluster.run("a", *[word.strip("'") for word in command.split()])
    assert await cluster.members(QUEUE_NAME) == NODES

    async def healed() -> None:
        found = await queue_findings(cluster, RABBITMQ_MANAGEMENT_URL=cluster.management_url)
        assert [level for level, *_ in found] == ["PASS"]
        assert (members_gauge("online"), members_gauge("wanted")) == (3, 3)

    await eventually(healed, within_seconds=RECOVERY_SECONDS)


@pytest.mark.parametrize(
    "login", ["guest:wrong@", "nobody:@"], ids=["wrong password", "unknown user"]
)
async def test_what_the_management_api_refuses_is_unknown_and_not_zero(
    cluster: Cluster, login: str
) -> None:
    """The queue is there; its members are not known, and no gauge says a number."""
    url = cluster.management_url.replace("http://", f"http://{login}")
    passed, told = await queue_findings(cluster, RABBITMQ_MANAGEMENT_URL=url)
    assert (passed[0], told[0]) == ("PASS", "WARN")
    assert "members of the queue are unknown" in told[1]
    assert "401" in told[1]
    assert members_gauge("online") is None


async def test_a_dead_first_node_costs_little_and_the_load_spreads(cluster: Cluster) -> None:
    """Whether it refuses or is silent; each process begins with another node."""
    name = f"test-{uuid4().hex}"
    url = cluster.url_of(NODES)
    seen = set()
    for _ in range(12):
        async with queue_at(url, name) as queue:
            seen.add((await queue.ping()).version.rpartition(" at ")[2])
    assert len(seen) > 1
    await cluster.freeze("a")
    try:
        for _ in range(4):
            async with queue_at(url, name) as queue:
                connection = await queue._open_connection()  # within its timeout, or it raises
                assert str(connection.node) != cluster.place("a")
    finally:
        await cluster.thaw("a")
    await cluster.is_whole()
    async with queue_at(url, name) as queue:
        await eventually(queue.ready, within_seconds=RECOVERY_SECONDS, retried=AWAY)
    await cluster.kill("a")
    try:
        async with queue_at(url, name) as queue, queue.consume(orders_max=10) as consumer:
            await published(queue, MESSAGE)
            assert len(await consumer.receive(10)) == 1
            assert (await queue.ping()).version.rpartition(" at ")[2] != cluster.place("a")
    finally:
        await cluster.up("a")
    await cluster.is_whole()
    await delete_queue(cluster.urls["b"], name)


async def test_a_refused_login_is_one_of_every_node(cluster: Cluster) -> None:
    """It is said as such, though another node is away; the password is not."""
    url = f"amqp://guest:hush@127.0.0.1:1,{cluster.place('a')},{cluster.place('b')}/"
    for _ in range(4):
        async with queue_at(url, "any") as queue:
            with pytest.raises(UnavailableError, match="403 ACCESS_REFUSED") as caught:
                await queue.ping()
            assert "hush" not in str(caught.value)
            assert ":1:" not in str(caught.value)


@pytest.mark.parametrize("how", ["kill", "freeze", "isolate"])
async def test_a_leader_that_is_lost_under_publishing_loses_nothing(
    cluster: Cluster, how: str
) -> None:
    """Every confirmed message is there, and soon all are confirmed again.

    The publisher is connected to the leader: its next channel may be opened while there is none.
    """
    name = f"test-{uuid4().hex}"
    confirmed: list[int] = []
    outages: list[float] = []
    async with queue_at(cluster.url, name) as queue:
        await published(queue, numbered(0))
        leader = await cluster.leader(name)
        while str((await queue._link.get()).connection.node) != cluster.place(leader):
            (await queue._link.get()).close("this test is about the leader's clients")
        stop = asyncio.Event()

        async def publish() -> None:
            number, away_since = 1, 0.0
            while not stop.is_set():
                try:
                    await queue.publish(numbered(number))
                except AWAY:
                    away_since = away_since or time.monotonic()
                    await look_again()
                else:
                    confirmed.append(number)
                    if away_since:
                        outages.append(time.monotonic() - away_since)
                        away_since = 0.0
                number += 1

        publishing = asyncio.create_task(publish())
        try:
            await has_grown(confirmed, 50)
            await getattr(cluster, how)(leader)
            await has_grown(confirmed, 200)
        finally:
            stop.set()
            await publishing
            if how == "isolate":
                await cluster.rejoin(leader)
            else:
                await cluster.kill(leader)
                await cluster.up(leader)
            await cluster.is_whole()
        print(f"{how}: {len(confirmed)} confirmed, longest outage {max(outages, default=0):.1f} s")
        received: set[int] = set()

        async def all_came() -> None:
            async with queue.consume(orders_max=10_000) as consumer:
                while deliveries := await consumer.receive(2):
                    received.update(numbers(deliveries))
                    await consumer.ack(deliveries)
            assert received >= set(confirmed)

        await eventually(all_came, within_seconds=RECOVERY_SECONDS, retried=(AssertionError, *AWAY))
    other = next(node for node in NODES if node != leader)
    await delete_queue(cluster.urls[other], name)


async def published(queue: RabbitMQQueue, message: Message) -> None:
    """Publish until it is confirmed: nodes that just came back may need longer for the first."""
    await eventually(lambda: queue.publish(message), within_seconds=RECOVERY_SECONDS, retried=AWAY)


async def has_grown(numbers: list[int], by: int) -> None:
    before = len(numbers)

    async def attempt() -> None:
        assert len(numbers) >= before + by

    await eventually(attempt, within_seconds=RECOVERY_SECONDS)


async def test_a_majority_that_is_lost_is_unavailable_and_comes_back(cluster: Cluster) -> None:
    """A minority loses nothing and confirms nothing; soon after the others' return all is well."""
    name = f"test-{uuid4().hex}"
    async with queue_at(cluster.url, name) as queue:
        for number in range(5):
            await published(queue, numbered(number))
        await cluster.kill("c")  # one of three: a majority is left
        await published(queue, numbered(5))
        await cluster.kill("b")

        async def away() -> None:
            with pytest.raises(AWAY):
                await queue.publish(numbered(6))
            with pytest.raises(UnavailableError):
                await queue.ready()

        await away()
        started = time.monotonic()
        await cluster.up("b", "c")
        ready = await eventually(queue.ready, within_seconds=RECOVERY_SECONDS, retried=AWAY)
        print(
            f"majority: ready again {time.monotonic() - started:.1f} s after the nodes were begun"
        )
        assert ready >= 6
        await published(queue, numbered(7))
    await delete_queue(cluster.urls["a"], name)
