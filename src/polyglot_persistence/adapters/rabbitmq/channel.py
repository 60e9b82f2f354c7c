"""One AMQP channel: calls in order, assembly of messages, hand-over of unsolicited frames.

Invariant: a closed channel never comes back; its listener is notified once.
Invariant: a canceled call keeps its place in the queue of replies.
"""

import asyncio
from collections import deque
from typing import NamedTuple, Protocol, TypeVar

from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.header import ContentHeader

from polyglot_persistence.adapters.rabbitmq.frames import (
    FRAME_BODY,
    FRAME_HEAD,
    FRAME_OVERHEAD_BYTES,
    Header,
    Properties,
)
from polyglot_persistence.errors import UnavailableError

Reply = TypeVar("Reply", bound=Frame)


class Content(NamedTuple):
    """A message from the broker: delivered, fetched, or returned to its publisher."""

    method: Frame
    properties: Properties
    body: bytes


class ChannelListener(Protocol):
    """Receives the broker's unsolicited frames."""

    def on_content(self, content: Content) -> None:
        """A delivery, a returned message, or the message of a `Basic.GetOk`."""

    def on_confirm(self, delivery_tag: int, *, multiple: bool, positive: bool) -> None:
        """The confirm of one publish, or of all up to it."""

    def on_closed(self, reason: str) -> None:
        """The channel is gone, or its consumer is (the queue was deleted)."""


class Wire(Protocol):
    """A channel's view of its connection."""

    timeout_seconds: float
    frame_bytes_max: int

    @property
    def closing(self) -> bool:
        """Whether bytes written now would not be sent."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def fail(self, reason: str) -> None:
        """End the connection at once."""


class AmqpChannel:
    """One channel; made by `AmqpConnection.channel`."""

    def __init__(self, connection: Wire, number: int, listener: ChannelListener) -> None:
        self._connection = connection
        self._number = number
        self._listener = listener
        self._calls: deque[asyncio.Future[Frame]] = deque()
        self._method: Frame | None = None
        self._header: Header | None = None
        self._body: list[bytes] = []
        self._body_bytes_missing = 0
        self.closed_because = ""

    async def call(self, method: Frame, *reply_types: type[Reply]) -> Reply:
        """Send a method and return its reply, of one of the given types.

        Raises:
            UnavailableError: the channel is or was closed, or the broker was silent.
        """
        self._check_open()
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._calls.append(future)
        self._connection.write(frame.marshal(method, self._number))
        try:
            async with asyncio.timeout(self._connection.timeout_seconds):
                reply = await future
        except TimeoutError as error:
            self._connection.fail(f"no reply to {method.name}")
            raise UnavailableError(f"RabbitMQ did not answer {method.name} in time") from error
        if not isinstance(reply, reply_types):
            self._connection.fail(f"{reply.name} is no reply to {method.name}")
            raise UnavailableError(f"RabbitMQ answered {method.name} with {reply.name}")
        return reply

    def send(self, *methods: Frame) -> None:
        """Send methods that have no reply.

        Raises:
            UnavailableError: the channel is closed.
        """
        self._check_open()
        self._connection.write(b"".join([frame.marshal(one, self._number) for one in methods]))

    def send_content(
        self, method: Frame, properties: commands.Basic.Properties, body: bytes
    ) -> None:
        """Send a method that carries a message.

        Raises:
            UnavailableError: the channel is closed.
        """
        self._check_open()
        number = self._number
        header = ContentHeader(body_size=len(body), properties=properties)
        pieces = [frame.marshal(method, number), frame.marshal(header, number)]
        size_max = self._connection.frame_bytes_max - FRAME_OVERHEAD_BYTES
        for first in range(0, len(body), size_max):
            piece = body[first : first + size_max]
            pieces += (FRAME_HEAD.pack(FRAME_BODY, number, len(piece)), piece, b"\xce")
        self._connection.write(b"".join(pieces))

    async def close(self) -> None:
        """Close this channel alone; its listener gets no further calls."""
        await self.call(commands.Channel.Close(200, "", 0, 0), commands.Channel.CloseOk)
        self.closed_because = "closed"

    def closed(self, reason: str) -> None:
        """Note that the channel is gone (its connection calls this)."""
        if self.closed_because:
            return
        self.closed_because = reason
        while self._calls:
            future = self._calls.popleft()
            if not future.done():
                future.set_exception(UnavailableError(f"RabbitMQ closed the channel: {reason}"))
        self._listener.on_closed(reason)

    def received(self, method: Frame | Header) -> None:
        """Take a frame (its connection calls this)."""
        match method:
            case Header():
                self._header = method
                self._body_bytes_missing = method.body_size
                self._complete_content()
            case commands.Basic.Deliver() | commands.Basic.Return():
                self._method = method
            case commands.Basic.GetOk():
                self._method = method
                self._replied(method)
            case commands.Basic.Ack() | commands.Basic.Nack():
                self._listener.on_confirm(
                    method.delivery_tag,
                    multiple=method.multiple,
                    positive=isinstance(method, commands.Basic.Ack),
                )
            case commands.Basic.Cancel():
                self.closed("its queue was deleted or lost its leader")
            case commands.Channel.Close():
                self._connection.write(frame.marshal(commands.Channel.CloseOk(), self._number))
                self.closed(f"{method.reply_code} {method.reply_text}")
            case _:
                self._replied(method)

    def _replied(self, method: Frame) -> None:
        future = self._calls.popleft()  # IndexError: a reply without a request
        if not future.done():
            future.set_result(method)

    def received_body(self, piece: bytes) -> None:
        """Take a piece of a message's body (its connection calls this)."""
        self._body.append(piece)
        self._body_bytes_missing -= len(piece)
        self._complete_content()

    def _complete_content(self) -> None:
        if self._body_bytes_missing > 0:
            return
        if self._method is None or self._header is None:
            raise ValueError("a message without its method")
        content = Content(self._method, self._header.properties, b"".join(self._body))
        self._method = self._header = None
        self._body = []
        self._listener.on_content(content)

    def _check_open(self) -> None:
        if self.closed_because:
            raise UnavailableError(f"the channel to RabbitMQ is closed: {self.closed_because}")
        if self._connection.closing:
            raise UnavailableError("the connection to RabbitMQ is closing")
