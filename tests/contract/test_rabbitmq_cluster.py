"""The queue over a RabbitMQ cluster of two nodes, of which one dies: no quorum is left."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.domain import codec
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import Delivery, Message
from tests.support.addresses import RABBITMQ, needs
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.queue_messages import hold, numbered
from tests.support.rabbitmq_cluster import Cluster, running_cluster

AWAY = (UnavailableError, UnknownOutcomeError)
MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)
NODES = "ab"
ANSWER_SECONDS = 3.0
RECOVERY_SECONDS = 60.0

pytestmark = [
    needs(RABBITMQ),
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster(NODES, handling="ignore") as cluster:
        yield cluster


async def minority(cluster: Cluster, name: str, *, leads: bool) -> RabbitMQQueue:
    """Return the queue on the node that is left: the one that leads the queue, or the other."""
    leader = await cluster.leader(name)
    follower = NODES.replace(leader, "")
    left, killed = (leader, follower) if leads else (follower, leader)
    await cluster.kill(killed)
    return queue_on(cluster, left, name)


def queue_on(cluster: Cluster, node: str, name: str) -> RabbitMQQueue:
    return RabbitMQQueue(
        cluster.urls[node],
        queue=name,
        connect_timeout_seconds=5,
        publish_timeout_seconds=ANSWER_SECONDS,
    )


@pytest.mark.parametrize("messages", [0, 3])
@pytest.mark.parametrize("leads", [False, True], ids=["leader killed", "follower killed"])
async def test_a_queue_without_quorum_is_never_empty(
    cluster: Cluster, messages: int, *, leads: bool
) -> None:
    """A minority cannot know what the others hold, whatever it has of it."""
    name = f"test-{uuid4().hex}"
    everywhere = queue_on(cluster, NODES[0], name)
    for _ in range(messages):
        await everywhere.publish(MESSAGE)
    assert await everywhere.ready() == messages
    await everywhere.ping()
    await everywhere.close()
    queue = await minority(cluster, name, leads=leads)
    for _ in range(3):
        if leads and messages:
            assert await queue.ready() == messages  # no proof of anything
        else:
            with pytest.raises(UnavailableError):
                await queue.ready()
            with pytest.raises(UnavailableError):
                await queue.ping()
    with pytest.raises(AWAY):
        await queue.publish(MESSAGE)
    for node in NODES:
        await cluster.up(node)
    # What was published in vain may be in the queue or not.
    ready = await eventually(queue.ready, within_seconds=RECOVERY_SECONDS, retried=AWAY)
    assert messages <= ready <= messages + 1
    await queue.close()


async def test_what_was_delivered_before_a_node_died_is_known_to_have_been(
    cluster: Cluster,
) -> None:
    """The queue's log outlives its leader, and says who had what."""
    name = f"test-{uuid4().hex}"
    first = queue_on(cluster, NODES[0], name)
    for number in range(3):
        await first.publish(numbered(number))
    leader = await cluster.leader(name)
    async with first.consume(orders_max=100) as consumer:
        await hold(consumer, 3)
        await cluster.kill(leader)
    await cluster.up(leader)
    await first.close()
    again = queue_on(cluster, leader, name)
    received: list[Delivery] = []

    async def receive() -> None:
        async with again.consume(orders_max=100) as consumer:
            deliveries = await consumer.receive(5)
            received.extend(deliveries)
            await consumer.ack(deliveries)
            assert await again.ready() == 0

    await eventually(receive, within_seconds=RECOVERY_SECONDS, retried=(AssertionError, *AWAY))
    assert len(received) >= 3
    assert all(delivery.redeliveries >= 1 for delivery in received)
    await again.close()
