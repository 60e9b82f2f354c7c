"""The channel that declares the queue and counts its ready messages.

Invariant: a message taken for counting is handed back at once, even if the caller has left.
"""

from pamqp import commands

from polyglot_persistence.adapters.rabbitmq import messages
from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, Content
from polyglot_persistence.adapters.rabbitmq.connection import AmqpConnection
from polyglot_persistence.errors import UnavailableError


class Control:
    """One channel of the publishing connection; valid while `closed_because` is empty."""

    def __init__(self, connection: AmqpConnection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._channel: AmqpChannel | None = None

    @property
    def closed_because(self) -> str:
        """The reason why it is unusable; empty while it is usable."""
        return self._channel.closed_because if self._channel else self._connection.closed_because

    async def open(self) -> None:
        """Open the channel and declare the queue."""
        self._channel = await self._connection.channel(self)
        await self.declare()

    async def declare(self) -> int:
        """Create the queue if it is missing; return the reported number of ready messages.

        A positive number is a count. 0 is not: the broker also returns it if it cannot count,
        because the queue has no leader, or has one that is slow (250 ms) or cut off from the other
        nodes.
        """
        return await messages.declare(self._open_channel(), self._queue)

    async def ready(self) -> int:
        """Return the number of ready messages; 0 is confirmed by most nodes of the queue.

        A `Basic.Get` goes through the queue's log (`rabbit_fifo_client:dequeue`), so the answer
        *empty* needs a quorum. Without one the result is an error, or silence. A message that
        arrived since the declaration goes back to the head of the queue, and its next delivery is a
        redelivery.

        Raises:
            UnavailableError: the broker cannot count.
        """
        if ready := await self.declare():
            return ready
        reply = await self._open_channel().call(
            commands.Basic.Get(queue=self._queue), commands.Basic.GetEmpty, commands.Basic.GetOk
        )
        # The fetched message is ready again, or soon.
        return (reply.message_count or 0) + 1 if isinstance(reply, commands.Basic.GetOk) else 0

    def on_content(self, content: Content) -> None:
        """Hand back the message fetched for counting."""
        if isinstance(content.method, commands.Basic.GetOk):
            self._open_channel().send(
                commands.Basic.Nack(content.method.delivery_tag or 0, requeue=True)
            )

    def on_confirm(self, delivery_tag: int, *, multiple: bool, positive: bool) -> None:
        """Unused: nothing is published here."""

    def on_closed(self, reason: str) -> None:
        """Unused: the next call reports it."""

    def _open_channel(self) -> AmqpChannel:
        # During an alarm the broker reads nothing from a connection that has published.
        self._connection.check_not_blocked()
        if self._channel is None:
            raise UnavailableError("no channel to RabbitMQ")
        return self._channel
