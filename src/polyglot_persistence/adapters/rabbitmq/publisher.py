"""Publishing on one connection: every message persistent, mandatory and confirmed.

Invariant: a sent message is confirmed, returned, or of unknown outcome; never forgotten.
Invariant: the bytes that wait for a confirm are bounded; a message above the bound is refused, not
sent.
"""

import asyncio
from typing import Final, NamedTuple

from pamqp import commands

from polyglot_persistence.adapters.rabbitmq import messages
from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, Content
from polyglot_persistence.adapters.rabbitmq.connection import AmqpConnection
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import Message

IN_FLIGHT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Far more than the group commit keeps in flight (a few MB)."""


class ReturnedError(UnavailableError):
    """The broker could not route the message: the queue is missing."""


class _Unconfirmed(NamedTuple):
    future: "asyncio.Future[None]"
    size_bytes: int


class Publisher:
    """The publishing end of one connection; valid while `closed_because` is empty."""

    def __init__(self, connection: AmqpConnection, queue: str) -> None:
        self.connection = connection
        self._queue = queue
        self._channel: AmqpChannel | None = None
        self._unconfirmed: dict[int, _Unconfirmed] = {}
        self._in_flight_bytes = 0
        self._tag = 0

    @property
    def closed_because(self) -> str:
        """The reason why it is unusable; empty while it is usable."""
        return self._channel.closed_because if self._channel else self.connection.closed_because

    async def open(self) -> None:
        """Open the channel and enable confirms."""
        self._channel = await self.connection.channel(self)
        await self._channel.call(commands.Confirm.Select(), commands.Confirm.SelectOk)

    async def publish(self, message: Message, *, timeout_seconds: float) -> None:
        """Return when the broker has confirmed the message.

        Raises:
            ReturnedError: the queue is missing.
            UnavailableError: not sent; or the broker accepts no messages at the moment.
            UnknownOutcomeError: sent, and not confirmed in time or at all.
        """
        self.connection.check_not_blocked()
        if self._in_flight_bytes + len(message.body) > IN_FLIGHT_BYTES_MAX and self._unconfirmed:
            raise UnavailableError("too much waits for RabbitMQ's confirm")
        future = self._send(message)
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except TimeoutError as error:
            # A blocked broker resumes reading after its alarm. Any other silent one is out of step.
            if not self.connection.blocked_because:
                self.connection.fail(f"no confirm within {timeout_seconds:g} s")
            raise UnknownOutcomeError(f"not confirmed within {timeout_seconds:g} s") from error

    def _send(self, message: Message) -> "asyncio.Future[None]":
        if self._channel is None:
            raise UnavailableError("no connection to RabbitMQ")
        tag = self._tag + 1
        self._channel.send_content(
            commands.Basic.Publish(routing_key=self._queue, mandatory=True),
            messages.properties_of(message, tag),
            message.body,
        )
        self._tag = tag
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unconfirmed[tag] = _Unconfirmed(future, len(message.body))
        self._in_flight_bytes += len(message.body)
        return future

    def on_content(self, content: Content) -> None:
        """Fail the publish of a returned message; its confirm comes later."""
        waiting = self._unconfirmed.get(int(content.properties.message_id or 0))
        if waiting is not None and not waiting.future.done():
            waiting.future.set_exception(ReturnedError("RabbitMQ has no such queue"))

    def on_confirm(self, delivery_tag: int, *, multiple: bool, positive: bool) -> None:
        """Resolve one publish, or all up to it."""
        if multiple:
            tags = [tag for tag in self._unconfirmed if tag <= delivery_tag]
        else:
            tags = [delivery_tag]
        for tag in tags:
            future, size_bytes = self._unconfirmed.pop(tag)
            self._in_flight_bytes -= size_bytes
            if future.done():
                continue  # returned, timed out, or its caller was canceled
            if positive:
                future.set_result(None)
            else:  # "an internal error occurred" (Consumer Acknowledgements and Publisher Confirms)
                future.set_exception(UnknownOutcomeError("RabbitMQ could not confirm the message"))
        if not positive:
            # A channel that was opened while the queue had no leader never finds the new one: it
            # refuses every message (seen on 3.10, test_rabbitmq_nodes.py).
            self.connection.fail("RabbitMQ could not confirm a message")

    def on_closed(self, reason: str) -> None:
        """Fail all publishes that wait for a confirm."""
        while self._unconfirmed:
            _, (future, _) = self._unconfirmed.popitem()
            if not future.done():
                future.set_exception(UnknownOutcomeError(f"RabbitMQ is gone: {reason}"))
