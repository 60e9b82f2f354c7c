"""The queue over a RabbitMQ cluster of two nodes, of which one dies: no quorum is left."""

import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.domain import codec
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports import Message
from tests.support.addresses import RABBITMQ, needs
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.rabbitmq_cluster import Cluster, running_cluster

AWAY = (UnavailableError, UnknownOutcomeError)
MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)
NODES = "ab"
ANSWER_SECONDS = 1.0
RECOVERY_SECONDS = 60.0

pytestmark = [
    needs(RABBITMQ),
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster(NODES) as cluster:
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
        started = time.monotonic()
        if leads and messages:
            assert await queue.ready() == messages  # no proof of anything
        else:
            with pytest.raises(UnavailableError):
                await queue.ready()
            with pytest.raises(UnavailableError):
                await queue.ping()
        assert time.monotonic() - started < 3 * ANSWER_SECONDS
    with pytest.raises(AWAY):
        await queue.publish(MESSAGE)
    for node in NODES:
        await cluster.up(node)
    # What was published in vain may be in the queue or not.
    ready = await eventually(queue.ready, within_seconds=RECOVERY_SECONDS, retried=AWAY)
    assert messages <= ready <= messages + 1
    await queue.close()
