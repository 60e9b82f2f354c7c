"""The queue's declaration, and a message as RabbitMQ has it.

The body is the port's; count, schema and time of acceptance (microseconds) are headers, so that
the management page shows them.
"""

from typing import Any, Final

from pamqp import commands
from pamqp.commands import Basic

from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, Content
from polyglot_persistence.domain.order import moment_or_none, to_micros
from polyglot_persistence.ports.queue import TRACE_HEADERS, Delivery, Message

_PERSISTENT: Final = 2

_QUEUE_ARGUMENTS: Final[dict[str, Any]] = {
    "x-queue-type": "quorum",
    # Out of the way: 4.x drops a message after 20 deliveries, and what condemns one is ours to say.
    "x-delivery-limit": 1_000_000,
}

_SCHEMA_UNSTATED: Final = 1
"""Of a message that was put there by hand, without headers."""


_ORDERS_MAX: Final = 999_999
"""More are not a count of orders: it would be held against this message's neighbors."""


async def declare(channel: AmqpChannel, queue: str) -> int:
    """Create the queue if it is missing; return how many messages are said to be ready."""
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
    """Return what a worker gets; headers that are missing or no numbers count as not there."""
    headers = content.properties.headers
    orders = _whole(headers.get("orders")) or 0
    return Delivery(
        tag=tag,
        body=content.body,
        orders=orders if orders <= _ORDERS_MAX else 0,
        accepted_at=moment_or_none(_whole(headers.get("accepted_at"))),
        schema=_whole(headers.get("schema")) or _SCHEMA_UNSTATED,
        # A quorum queue counts; on the first delivery the header is not there.
        redeliveries=max(_whole(headers.get("x-delivery-count")) or 0, int(redelivered)),
        trace={
            name: value for name in TRACE_HEADERS if isinstance(value := headers.get(name), str)
        },
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
