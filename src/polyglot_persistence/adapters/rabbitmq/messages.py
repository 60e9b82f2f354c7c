"""The queue's declaration, and the form of a message in RabbitMQ.

The body is the port's. Count, schema and time of acceptance (microseconds) are headers, so that the
management page shows them.
"""

from typing import Any, Final

from pamqp import commands
from pamqp.commands import Basic

from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, Content
from polyglot_persistence.domain.order import to_micros
from polyglot_persistence.ports.queue import Delivery, Message

_PERSISTENT: Final = 2

_QUEUE_ARGUMENTS: Final[dict[str, Any]] = {
    "x-queue-type": "quorum",
    # Disabled in effect: 4.x drops a message after 20 deliveries, and only this service may condemn
    # one.
    "x-delivery-limit": 1_000_000,
}


async def declare(channel: AmqpChannel, queue: str) -> int:
    """Create the queue if it is missing; return the reported number of ready messages."""
    method = commands.Queue.Declare(queue=queue, durable=True, arguments=_QUEUE_ARGUMENTS)
    reply = await channel.call(method, commands.Queue.DeclareOk)
    return reply.message_count or 0


def properties_of(message: Message, message_id: int) -> Basic.Properties:
    """Return the properties of a message; its id is the tag of its confirm."""
    return Basic.Properties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        message_id=str(message_id),
        headers={
            "orders": message.orders,
            "accepted_at": to_micros(message.accepted_at),
            "schema": message.schema,
            **message.trace,
        },
    )


def delivery_of(content: Content, tag: object, *, redelivered: bool) -> Delivery:
    """Return the delivery of a message for a worker."""
    headers = content.properties.headers
    # A quorum queue counts; the first delivery has no such header.
    counted = headers.get("x-delivery-count")
    redeliveries = max(counted if isinstance(counted, int) else 0, int(redelivered))
    return Delivery.read(tag, content.body, headers, redeliveries)
