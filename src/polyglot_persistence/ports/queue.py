"""The durable queue between API and worker."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from polyglot_persistence.domain.order import moment_or_none
from polyglot_persistence.ports.state import StoreState

QUEUE_NAME = "order_queue"
"""The name in the Go peer, on every broker."""

TRACE_HEADERS = ("traceparent", "tracestate")
"""W3C Trace Context, Level 1."""


_SCHEMA_UNSTATED = 1
"""Schema of a message published by hand, without headers."""

_ORDERS_MAX = 999_999
"""A larger number is not an order count: it would cost this message's neighbors."""


class Message(NamedTuple):
    """A batch of orders on its way to a worker."""

    body: bytes
    orders: int
    accepted_at: datetime
    """Acceptance of its oldest order."""
    schema: int
    """`codec.SCHEMA_VERSION` of the writer."""
    trace: Mapping[str, str] = {}
    """The publisher's `tracing.carrier()`: headers beside the body, which older workers ignore."""


class Delivery(NamedTuple):
    """A message handed to this consumer until it is acknowledged, released, or its channel dies."""

    tag: object
    """The adapter's own handle."""
    body: bytes
    orders: int
    """From the header; 0 without one. Only a hint."""
    accepted_at: datetime | None
    schema: int
    redeliveries: int
    """Number of earlier deliveries: a lower bound, and 0 only if there certainly was none."""
    trace: Mapping[str, str] = {}
    """The publisher's headers."""

    @classmethod
    def read(
        cls, tag: object, body: bytes, headers: Mapping[str, object], redeliveries: int
    ) -> "Delivery":
        """Build a delivery from untrusted headers; invalid values count as missing."""
        orders = _whole(headers.get("orders")) or 0
        trace = {name: headers.get(name) for name in TRACE_HEADERS}
        return cls(
            tag,
            body,
            orders if orders <= _ORDERS_MAX else 0,
            moment_or_none(_whole(headers.get("accepted_at"))),
            _whole(headers.get("schema")) or _SCHEMA_UNSTATED,
            redeliveries,
            {name: value for name, value in trace.items() if isinstance(value, str)},
        )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


class Consumer(Protocol):
    """One worker's end of the queue, valid until it raises."""

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Return the available deliveries, at least one unless `wait_seconds` pass without.

        The orders in held deliveries are bounded by the argument of `consume`.

        Raises:
            UnavailableError: the channel is gone; all unacknowledged deliveries will come again.
        """

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Remove them from the queue. On a dead channel it does nothing: they come again."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand them back for any worker to take at once."""


class Queue(Protocol):
    """The durable queue between API and worker: at-least-once, roughly first in, first out."""

    async def publish(self, message: Message) -> None:
        """Return when the queue has made the message durable (publisher confirm).

        Raises:
            UnavailableError: not sent, or refused: it will never be delivered.
            UnknownOutcomeError: sent and not confirmed in time.
        """

    def consume(self, *, orders_max: int) -> AbstractAsyncContextManager[Consumer]:
        """Open a channel that holds at most about `orders_max` unacknowledged orders.

        Leaving the context closes the channel and hands back all unacknowledged messages.
        """

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        """Return how long a message may be neither ready nor received, once it was delivered.

        The maximum time from its delivery until it is done, counted by `ready`, or received as
        redelivered; `hold_seconds` is how long workers hold received messages. One worker may stall
        or die meanwhile.
        """

    async def ready(self) -> int:
        """Return the number of messages that no consumer holds.

        Raises:
            UnavailableError: the queue is away, or cannot count.
        """

    async def ping(self) -> StoreState:
        """Return the broker's version."""
