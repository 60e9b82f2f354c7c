"""The queue over RabbitMQ.

One connection publishes and is kept alive (`runtime.link`). Each consumer has its own, since the
broker blocks a publishing connection during an alarm, and consuming ends the alarm. A consumer's
connection is not kept alive: its owner consumes again after a loss.

Invariant: connect, declare, then use: a broker that lost the queue gets it again.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from polyglot_persistence.adapters.rabbitmq.connection import (
    HEARTBEAT_SECONDS,
    AmqpConnection,
    open_connection,
)
from polyglot_persistence.adapters.rabbitmq.consumer import RabbitMQConsumer
from polyglot_persistence.adapters.rabbitmq.control import Control
from polyglot_persistence.adapters.rabbitmq.members import UNSEEN, Members
from polyglot_persistence.adapters.rabbitmq.publisher import Publisher, ReturnedError
from polyglot_persistence.config.addresses.rabbitmq import read_management, read_rabbitmq
from polyglot_persistence.ports.queue import QUEUE_NAME, Message
from polyglot_persistence.ports.state import StoreState, StoreWarning
from polyglot_persistence.runtime.link import KeepAlive
from polyglot_persistence.telemetry import logger

_PAUSE_SECONDS_MAX: Final = 1.0

_SILENT_HEARTBEATS_MAX: Final = 3
_HAND_BACK_SECONDS_MAX: Final = 1.0

_log = logger("queue")


class _Link:
    """The publishing connection with its two channels."""

    def __init__(self, connection: AmqpConnection, queue: str) -> None:
        self.connection = connection
        self.control = Control(connection, queue)
        self.publisher = Publisher(connection, queue)

    @property
    def closed_because(self) -> str:
        """The reason why it is unusable; empty while it is usable."""
        return self.publisher.closed_because or self.control.closed_because

    def close(self, reason: str) -> None:
        """End the connection at once."""
        self.connection.fail(reason)

    async def open(self) -> None:
        """Open both channels and declare the queue."""
        await self.control.open()
        await self.publisher.open()


class RabbitMQQueue:
    """`ports.Queue`. Its owner closes it."""

    def __init__(
        self,
        url: str,
        *,
        queue: str = QUEUE_NAME,
        management_url: str | None = None,
        authority: ssl.SSLContext | None = None,
        connect_timeout_seconds: float,
        publish_timeout_seconds: float,
    ) -> None:
        self._address = read_rabbitmq(url)
        self._queue = queue
        self._authority = authority
        self._connect_timeout_seconds = connect_timeout_seconds
        self._publish_timeout_seconds = publish_timeout_seconds
        self._members: Members | None = None
        if management_url is not None:
            self._members = Members(
                read_management(management_url, self._address), queue, authority
            )
        self._link = KeepAlive(
            f"RabbitMQ at {self._address}", self._open_link, pause_seconds_max=_PAUSE_SECONDS_MAX
        )

    async def publish(self, message: Message) -> None:
        """Return when the broker has confirmed the message.

        A missing queue is declared again: the publish that detects it is refused, the next one
        succeeds.
        """
        link = await self._link.get()
        try:
            await link.publisher.publish(message, timeout_seconds=self._publish_timeout_seconds)
        except ReturnedError:
            _log.error("queue_missing", queue=self._queue)
            await link.control.declare()
            raise

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        """Return the time of two workers: one holds the message, the next one has it prefetched.

        The first may stall. The broker checks for received bytes once an interval, and closes the
        connection at the second check without any: "we will time out between 2 and 3 intervals
        after the last data has been received" (`rabbit_heartbeat`); 11.1 to 15.03 s were measured
        on 3.10 and 4.0. The messages go to the buffer of a worker that may be busy for as long as
        it may hold earlier messages.
        """
        silence_seconds = _SILENT_HEARTBEATS_MAX * HEARTBEAT_SECONDS + _HAND_BACK_SECONDS_MAX
        return 2 * hold_seconds + silence_seconds

    @asynccontextmanager
    async def consume(self, *, orders_max: int) -> AsyncIterator[RabbitMQConsumer]:
        """Consume over a connection of its own.

        Raises:
            UnavailableError: the broker is away.
        """
        connection = await self._open_connection()
        try:
            consumer = RabbitMQConsumer(connection, self._queue, orders_max=orders_max)
            await consumer.open()
            yield consumer
        finally:
            await connection.close()

    async def ready(self) -> int:
        """Return the number of ready messages; a missing queue is declared, and empty.

        Raises:
            UnavailableError: the broker is away, accepts no messages, or cannot count, because the
                queue has no quorum.
        """
        return await (await self._link.get()).control.ready()

    async def ping(self) -> StoreState:
        """Return the broker's version, and the node in use if the address names several.

        A broker that accepts no messages is unavailable. So is a queue without a quorum, as far as
        this is visible without a publish: if it reports no ready messages.
        """
        link = await self._link.get()
        await link.control.ready()
        properties = link.connection.server_properties
        version = f"{properties.get('product')} {properties.get('version')}"
        warnings: tuple[StoreWarning, ...] = ()
        if len(self._address.hosts) > 1:
            version = f"{version} at {link.connection.node}"
            warnings = (UNSEEN,)
        if self._members is not None:
            warnings = await self._members.warnings()
        return StoreState(version, warnings)

    async def close(self) -> None:
        """Close the publishing connection for good. Idempotent."""
        await self._link.close()
        if self._link.latest is not None:
            await self._link.latest.connection.close()

    async def _open_link(self) -> _Link:
        connection = await self._open_connection()
        link = _Link(connection, self._queue)
        try:
            await link.open()
        except BaseException:
            connection.fail("not set up")
            raise
        return link

    async def _open_connection(self) -> AmqpConnection:
        return await open_connection(
            self._address,
            authority=self._authority,
            connect_timeout_seconds=self._connect_timeout_seconds,
            timeout_seconds=self._publish_timeout_seconds,
        )
