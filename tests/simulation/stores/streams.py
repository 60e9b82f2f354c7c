"""The queue port over a simulated Valkey: one stream, one group, and who has what of it.

A delivery that lies with one consumer for `claim_idle_seconds` is anybody's, and counts as ready,
whether its consumer is silent or only slow.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

from polyglot_persistence.domain.codec import SCHEMA_VERSION
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.queue import Delivery, Message
from polyglot_persistence.ports.state import StoreState, StoreWarning
from tests.simulation.stores.valkey import (
    ONLY,
    Certain,
    Pending,
    Session,
    ValkeyAddress,
    ValkeyServer,
)

CLAIM_IDLE_SECONDS = 30.0
_RELEASED = "released"
_LONG_AGO = float("-inf")
_MESSAGES_MAX = 500


class SimulatedStreams:
    """`ports.Queue` of one process."""

    def __init__(
        self, address: ValkeyAddress, name: str, *, claim_idle_seconds: float = CLAIM_IDLE_SECONDS
    ) -> None:
        self._session = Session(address)
        self._name = name
        self._claim_idle_seconds = claim_idle_seconds
        self._opened = 0
        self._abandoned: list[str] = []
        self._consumers: list[StreamsConsumer] = []

    async def publish(self, message: Message) -> None:
        """Append the message; refused at the memory limit."""
        with self._session.writing(takes_memory=True) as server:
            server.append(message)
        server.changed()

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        """Return the hold limit: what is held for longer counts as ready."""
        return hold_seconds

    @asynccontextmanager
    async def consume(self, *, orders_max: int) -> AsyncIterator["StreamsConsumer"]:
        """Consume under a new name; hand back what earlier ones could not."""
        self._leave(*self._abandoned)
        self._abandoned = []
        self._opened += 1
        name = f"{self._name}-{self._opened}"
        consumer = StreamsConsumer(
            name, self._session, orders_max=orders_max, claim_idle_seconds=self._claim_idle_seconds
        )
        self._consumers.append(consumer)
        try:
            yield consumer
        finally:
            self._consumers.remove(consumer)
            if not consumer.is_killed:
                consumer.die("it left")
                try:
                    self._leave(name)
                except UnavailableError:
                    self._abandoned.append(name)

    async def ready(self) -> int:
        """Count what nobody has, or has had for too long."""
        server = self._session.server()
        busy = sum(
            not _is_anybodys(server, one, self._claim_idle_seconds)
            for one in server.pending.values()
        )
        return len(server.messages) - busy

    async def ping(self) -> StoreState:
        """Ask whether the server confirms only what is durable."""
        server = self._session.server()
        self._session.meet(server)
        durable = server.fsync == "always"
        return StoreState(
            "Simulated Valkey 1 streams",
            ()
            if durable
            else (StoreWarning("not durable", "set appendonly to yes and appendfsync to always"),),
        )

    def kill(self) -> None:
        """Let the process die: nothing is handed back, its consumers are silent from now on."""
        for consumer in self._consumers:
            consumer.is_killed = True
            consumer.die("its process died")
        self._session.drop()

    def _leave(self, *names: str) -> None:
        if not names:
            self._session.server()
            return
        with self._session.writing() as server:
            for message_id, pending in list(server.pending.items()):
                if pending.owner in names:
                    _give_back(server, message_id)
        server.changed()


class StreamsConsumer:
    """`ports.Consumer`."""

    def __init__(
        self, name: str, session: Session, *, orders_max: int, claim_idle_seconds: float
    ) -> None:
        self._name = name
        self._session = session
        self._orders_max = orders_max
        self._claim_idle_seconds = claim_idle_seconds
        self._held: dict[int, int] = {}
        self._has_asked = False
        self._dead_because = ""
        self._wake = asyncio.Event()
        self.is_killed = False

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Take what is there, or wait for it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while True:
            server = self._server()
            self._wake.clear()
            room = self._orders_max - sum(self._held.values())
            if room > 0 and (deliveries := self._take(server, room)):
                return deliveries
            left_seconds = deadline - loop.time()
            if left_seconds <= 0:
                return []
            if room > 0:
                left_seconds = min(left_seconds, self._seconds_to_claim(server))
            await self._wait(server, left_seconds)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Delete them, whoever has them now."""
        ids = self._forget(deliveries)
        with self._failing_quietly() as server:
            if ids and server is not None:
                with server.effect():
                    for message_id in ids:
                        server.pending.remove(message_id)
                        server.messages.remove(message_id)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Make them anybody's at once."""
        schemas = {one.tag: one.schema for one in deliveries}
        ids = self._forget(deliveries)
        with self._failing_quietly() as server:
            if ids and server is not None:
                with server.effect():
                    for message_id in ids:
                        _give_back(server, message_id, schemas[message_id])
                server.changed()

    def die(self, reason: str) -> None:
        """End the connection."""
        self._dead_because = self._dead_because or reason
        self._wake.set()

    def _server(self) -> ValkeyServer:
        """Return the server, on another connection if the last one was cut meanwhile."""
        if not self._dead_because:
            try:
                return self._session.server()
            except UnavailableError as error:
                self.die(str(error))
        raise UnavailableError(f"the queue's channel is gone: {self._dead_because}")

    def _take(self, server: ValkeyServer, room: int) -> list[Delivery]:
        now = server.clock.monotonic()
        newer = {_released(one.schema) for one in server.messages.values() if _is_newer(one)}
        left = [
            message_id
            for message_id in sorted(server.pending)
            if _is_anybodys(server, server.pending[message_id], self._claim_idle_seconds)
            and server.pending[message_id].owner not in newer
        ]
        new = sorted(i for i in server.messages if i not in server.pending)
        taken: list[Delivery] = []
        try:
            with server.effect():
                if ONLY not in server.groups:
                    server.groups.put(ONLY, None)
                for message_id in [*left, *new][:_MESSAGES_MAX]:
                    if room <= 0:
                        break
                    before = server.pending.get(message_id)
                    deliveries = before.deliveries if before else 0
                    server.pending.put(message_id, Pending(self._name, now, deliveries + 1))
                    message = server.messages[message_id]
                    room -= max(message.orders, 1)
                    taken.append(_delivery(message_id, message, deliveries))
                if taken or not self._has_asked:
                    self._has_asked = True
                    taken = _certain(server, taken)
        except UnavailableError as error:
            self.die(str(error))
            raise UnavailableError(f"the queue's channel is gone: {error}") from error
        self._held.update((int(str(one.tag)), max(one.orders, 1)) for one in taken)
        return taken

    async def _wait(self, server: ValkeyServer, seconds: float) -> None:
        wake: Callable[[], None] = self._wake.set
        connections = server.connections
        server.on_change.append(wake)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        finally:
            server.on_change.remove(wake)
        if server.connections != connections:
            self.die("its connection was cut while it waited")

    def _seconds_to_claim(self, server: ValkeyServer) -> float:
        """Return when the first delivery becomes anybody's."""
        since = min((one.delivered_at for one in server.pending.values()), default=float("inf"))
        left = since + self._claim_idle_seconds - server.clock.monotonic()
        return max(left, 0.001)

    def _forget(self, deliveries: Sequence[Delivery]) -> list[int]:
        ids = [one.tag for one in deliveries if isinstance(one.tag, int)]
        for message_id in ids:
            self._held.pop(message_id, None)
        self._wake.set()
        return ids

    @contextlib.contextmanager
    def _failing_quietly(self) -> Iterator[ValkeyServer | None]:
        server = None
        with contextlib.suppress(UnavailableError):  # then it is dead
            server = None if self._dead_because else self._server()
        try:
            yield server
        except UnavailableError as error:
            self.die(str(error))


def _is_anybodys(server: ValkeyServer, pending: Pending, claim_idle_seconds: float) -> bool:
    return server.clock.monotonic() - pending.delivered_at >= claim_idle_seconds


def _certain(server: ValkeyServer, taken: list[Delivery]) -> list[Delivery]:
    """Count as redelivered what was there when the reign began, or the group: it may have been."""
    certain = server.groups[ONLY]
    if certain is None or certain.reign != server.reign:
        certain = Certain(server.reign, max(server.messages, default=0))
        server.groups.put(ONLY, certain)
    return [
        one._replace(redeliveries=max(one.redeliveries, int(int(str(one.tag)) <= certain.last_id)))
        for one in taken
    ]


def _is_newer(message: Message) -> bool:
    return message.schema > SCHEMA_VERSION


def _released(schema: int) -> str:
    """Return the owner of what was released: only newer workers take what is newer."""
    return f"{_RELEASED}-{schema}" if schema > SCHEMA_VERSION else _RELEASED


def _give_back(server: ValkeyServer, message_id: int, schema: int = SCHEMA_VERSION) -> None:
    pending = server.pending.get(message_id)
    if pending is not None:
        owner = _released(schema)
        server.pending.put(message_id, Pending(owner, _LONG_AGO, pending.deliveries))


def _delivery(message_id: int, message: Message, redeliveries: int) -> Delivery:
    return Delivery(
        message_id,
        message.body,
        message.orders,
        message.accepted_at,
        message.schema,
        redeliveries,
        message.trace,
    )
