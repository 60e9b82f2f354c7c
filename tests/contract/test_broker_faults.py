"""Faults of a simulated broker, as RabbitMQ has them.

`test_rabbitmq_cluster.py` and `test_rabbitmq_scripted.py` say the same of the real one, which takes
a cluster for the one, and a machine that is short of memory for the other.
"""

import pytest

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.domain import codec
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import Message
from tests.simulation.stores.broker import Broker, SimulatedRabbitMQ
from tests.support.orders import START

MESSAGE = Message(b"[]", 1, START, codec.SCHEMA_VERSION)


@pytest.mark.parametrize("messages", [0, 3])
@pytest.mark.parametrize("keeps_undecided", [False, True])
async def test_a_queue_without_quorum_is_never_empty(
    messages: int, *, keeps_undecided: bool
) -> None:
    """It cannot count, and what is published in vain is in it afterwards, or is not."""
    broker = Broker(SystemClock())
    queue = SimulatedRabbitMQ(broker)
    for _ in range(messages):
        await queue.publish(MESSAGE)
    broker.lose_quorum()
    with pytest.raises(UnavailableError):
        await queue.ready()
    with pytest.raises(UnavailableError):
        await queue.ping()
    with pytest.raises(UnknownOutcomeError):
        await queue.publish(MESSAGE)
    broker.regain_quorum(keeps_undecided=keeps_undecided)
    assert await queue.ready() == messages + keeps_undecided


async def test_what_was_acknowledged_without_a_quorum_comes_again() -> None:
    """Nothing is decided without one, so its next consumer hears that it was delivered."""
    broker = Broker(SystemClock())
    queue = SimulatedRabbitMQ(broker)
    await queue.publish(MESSAGE)
    async with queue.consume(orders_max=10) as consumer:
        held = await consumer.receive(1)
        broker.lose_quorum()
        await consumer.ack(held)
        assert list(await consumer.receive(0)) == []
        broker.regain_quorum(keeps_undecided=False)
        [again] = await consumer.receive(1)
        assert again.redeliveries >= 1


async def test_while_an_alarm_lasts_messages_are_refused_and_delivered() -> None:
    """Delivering is what ends it; counting is not possible on a connection that publishes."""
    broker = Broker(SystemClock())
    queue = SimulatedRabbitMQ(broker)
    await queue.publish(MESSAGE)
    broker.takes_messages = False
    with pytest.raises(UnavailableError):
        await queue.publish(MESSAGE)
    with pytest.raises(UnavailableError):
        await queue.ready()
    async with queue.consume(orders_max=10) as consumer:
        await consumer.ack(await consumer.receive(1))
    broker.takes_messages = True
    assert await queue.ready() == 0
