"""A minimal AMQP 0-9-1 connection over pamqp's frames, for this adapter only.

A general client hides what matters here: that the broker blocks publishers, that a channel died,
whether a message was sent at all. It also reconnects, or waits, where a failure should be reported.
Everything is written at once and in order, so that no write can wait or be canceled.

```
  open --> handshake --> open <--> blocked (the broker takes no publishes: memory or disk alarm)
                           |
                           +--> closed: by either side, by silence, or by what is not AMQP
```

Invariant: a closed connection never comes back, nor does any of its channels.
"""

import asyncio
import itertools
import random
import ssl
import struct
from typing import Any, Final, cast

from pamqp import commands, frame, heartbeat
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.exceptions import PAMQPException
from pamqp.header import ProtocolHeader

from polyglot_persistence.adapters.rabbitmq.channel import AmqpChannel, ChannelListener
from polyglot_persistence.adapters.rabbitmq.frames import (
    FRAME_HEAD,
    FRAME_OVERHEAD_BYTES,
    Header,
    unmarshal,
)
from polyglot_persistence.config.addresses.hosts import Host
from polyglot_persistence.config.addresses.rabbitmq import BrokerAddress
from polyglot_persistence.errors import UnavailableError

HEARTBEAT_SECONDS: Final = 5
"""Proposed to the broker, whose default of 60 would detect a dead peer after two minutes. Below 5
the manual warns of false alarms ("Detecting Dead TCP Connections with Heartbeats")."""

_CLOSE_SECONDS_MAX: Final = 2.0

_ACCESS_REFUSED: Final = "403 "

_CAPABILITIES: Final = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "publisher_confirms",
)


class RefusedLoginError(UnavailableError):
    """The broker is there and refuses the user or the password."""


class AmqpConnection(asyncio.Protocol):
    """One connection; `open_connection` makes it."""

    def __init__(
        self, address: BrokerAddress, *, node: Host | None = None, timeout_seconds: float
    ) -> None:
        self.node = node or address.hosts[0]
        """The one of the address's hosts that this is a connection to."""
        self.timeout_seconds = timeout_seconds
        self.frame_bytes_max = 131_072
        self.server_properties: dict[str, Any] = {}
        self.blocked_because = ""
        self.closed_because = ""
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._channels: dict[int, AmqpChannel] = {}
        self._heartbeat_seconds = HEARTBEAT_SECONDS
        self._heard_at = 0.0
        self._tick: asyncio.TimerHandle | None = None

    @property
    def closing(self) -> bool:
        """Whether bytes written now would not be sent."""
        return self._transport is None or self._transport.is_closing()

    def check_not_blocked(self) -> None:
        """Raise `UnavailableError` while the broker accepts no messages on this connection."""
        if self.blocked_because:
            raise UnavailableError(f"RabbitMQ is blocked: {self.blocked_because}")

    async def opened(self) -> None:
        """Return when the handshake is done; raises `UnavailableError` if it failed."""
        await self._opened

    async def channel(self, listener: ChannelListener) -> AmqpChannel:
        """Open one more channel."""
        number = next(
            n
            for n in itertools.count(1)
            if n not in self._channels or self._channels[n].closed_because
        )
        channel = AmqpChannel(self, number, listener)
        self._channels[number] = channel
        if self.closed_because:
            channel.closed(self.closed_because)
        await channel.call(commands.Channel.Open(), commands.Channel.OpenOk)
        return channel

    async def close(self) -> None:
        """Close after the broker has received everything sent. Idempotent."""
        if self.closed_because or not self._opened.done():
            self.fail("closed")
            return
        self.write(frame.marshal(commands.Connection.Close(200, "", 0, 0), 0))
        try:
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                await self._ended.wait()
        except TimeoutError:
            pass  # a silent broker notices the closed socket
        finally:
            self.fail("closed")

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is gone (its channels call this)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def fail(self, reason: str) -> None:
        """End at once; all channels are notified. Idempotent."""
        if self.closed_because:
            return
        self.closed_because = reason
        if self._opened.done() and len(self._address.hosts) > 1:
            self.closed_because = reason = f"{self.node}: {reason}"
        self._ended.set()
        if self._transport is not None:
            self._transport.abort()
        if self._tick is not None:
            self._tick.cancel()
        if not self._opened.done():
            self._opened.set_exception(UnavailableError(reason))
            self._opened.exception()  # avoids a warning if all waiters have left
        for channel in list(self._channels.values()):
            channel.closed(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (asyncio calls this)."""
        # uvloop's transports are not subclasses of asyncio's; they only have the same shape.
        self._transport = cast("asyncio.Transport", transport)
        self.write(ProtocolHeader().marshal())

    def data_received(self, data: bytes) -> None:
        """Decode received bytes (asyncio calls this)."""
        self._heard_at = self._loop.time()
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while len(buffer) - position >= FRAME_OVERHEAD_BYTES and not self.closed_because:
                _, number, size = FRAME_HEAD.unpack_from(buffer, position)
                end = position + FRAME_HEAD.size + size
                if size > self.frame_bytes_max:
                    self.fail("not AMQP 0-9-1: a frame above the limit")
                if len(buffer) <= end:
                    break
                self._received(number, bytes(buffer[position : end + 1]))
                position = end + 1
        except (PAMQPException, LookupError, ValueError, struct.error) as error:
            self.fail(f"not AMQP 0-9-1: {error!r}")
        del buffer[:position]

    def connection_lost(self, exc: Exception | None) -> None:
        """End (asyncio calls this)."""
        self.fail(str(exc or "closed by the broker"))

    def _received(self, number: int, data: bytes) -> None:
        value = unmarshal(data)
        if number:
            channel = self._channels[number]
            if channel.closed_because:
                return
            if isinstance(value, ContentBody):
                channel.received_body(value.value)
            elif isinstance(value, Frame | Header):
                channel.received(value)
        elif isinstance(value, Frame):
            self._received_for_connection(value)

    def _received_for_connection(self, method: Frame) -> None:
        match method:
            case commands.Connection.Start():
                self.server_properties = dict(method.server_properties or {})
                self._log_in()
            case commands.Connection.Tune():
                self._tune(method)
            case commands.Connection.OpenOk():
                if not self._opened.done():
                    self._opened.set_result(None)
            case commands.Connection.Blocked():
                self.blocked_because = method.reason or "no reason given"
            case commands.Connection.Unblocked():
                self.blocked_because = ""
            case commands.Connection.Close():
                self.write(frame.marshal(commands.Connection.CloseOk(), 0))
                self.fail(f"{method.reply_code} {method.reply_text}")
            case commands.Connection.CloseOk():
                self._ended.set()
            case _:
                raise ValueError(method.name)

    def _log_in(self) -> None:
        secret = f"\0{self._address.username}\0{self._address.password}"
        properties: dict[str, Any] = {
            "product": "polyglot-persistence",
            "capabilities": dict.fromkeys(_CAPABILITIES, True),
        }
        self.write(
            frame.marshal(commands.Connection.StartOk(properties, "PLAIN", secret, "en_US"), 0)
        )

    def _tune(self, tune: commands.Connection.Tune) -> None:
        self.frame_bytes_max = tune.frame_max or self.frame_bytes_max
        self._heartbeat_seconds = min(tune.heartbeat or HEARTBEAT_SECONDS, HEARTBEAT_SECONDS)
        answer = commands.Connection.TuneOk(
            tune.channel_max, self.frame_bytes_max, self._heartbeat_seconds
        )
        self.write(frame.marshal(answer, 0))
        self.write(frame.marshal(commands.Connection.Open(self._address.virtual_host), 0))
        self._beat()

    def _beat(self) -> None:
        """Send a heartbeat, twice as often as agreed; give up after two silent intervals."""
        if self._loop.time() - self._heard_at > 2 * self._heartbeat_seconds:
            self.fail(f"silent for {2 * self._heartbeat_seconds} s")
            return
        self.write(heartbeat.Heartbeat().marshal())
        self._tick = self._loop.call_later(self._heartbeat_seconds / 2, self._beat)


async def open_connection(
    address: BrokerAddress,
    *,
    authority: ssl.SSLContext | None = None,
    connect_timeout_seconds: float,
    timeout_seconds: float,
) -> AmqpConnection:
    """Return an open connection to any node that is there.

    The first one is chosen at random, so that processes spread; the others follow in turn. Each has
    an equal share of the time that is left, so a node that does not answer leaves time for others.
    Over TLS `authority`, or else the system's own CAs, verifies the node.

    Raises:
        UnavailableError: none could be opened in time; the message says why for each. A refused
            login is one of the whole cluster, and ends the attempts.
    """
    tls = (authority or ssl.create_default_context()) if address.tls else None
    deadline = asyncio.get_running_loop().time() + connect_timeout_seconds
    first = random.randrange(len(address.hosts))  # noqa: S311  no secret
    nodes = [*address.hosts[first:], *address.hosts[:first]]
    errors: list[UnavailableError] = []
    for place, node in enumerate(nodes):
        share_seconds = (deadline - asyncio.get_running_loop().time()) / (len(nodes) - place)
        connection = AmqpConnection(address, node=node, timeout_seconds=timeout_seconds)
        try:
            await _open(connection, tls, share_seconds)
        except RefusedLoginError:
            raise
        except UnavailableError as error:
            errors.append(error)
        else:
            return connection
    if len(errors) == 1:
        raise errors[0]
    reason = "; ".join(map(str, errors))
    raise UnavailableError(reason) from max(errors, key=_is_of_tls)


async def _open(connection: AmqpConnection, tls: ssl.SSLContext | None, seconds_max: float) -> None:
    node = connection.node
    try:
        async with asyncio.timeout(seconds_max):
            await asyncio.get_running_loop().create_connection(
                lambda: connection, node.name, node.port, ssl=tls
            )
            await connection.opened()
    except BaseException as error:
        connection.fail("not connected")
        if isinstance(error, TimeoutError):
            reason = f"no connection within {seconds_max:.3g} s"
            raise UnavailableError(f"RabbitMQ at {node}: {reason}") from error
        if isinstance(error, OSError | UnavailableError):
            kind = RefusedLoginError if str(error).startswith(_ACCESS_REFUSED) else UnavailableError
            raise kind(f"RabbitMQ at {node}: {error}") from error
        raise


def _is_of_tls(error: UnavailableError) -> bool:
    return isinstance(error.__cause__, ssl.SSLError)
