"""One worker's end of the stream.

Invariant: each delivery to this consumer is either given to the worker or released when the
consumer leaves; canceling a `receive` loses nothing.
Invariant: a blocking read has a connection of its own, since it would block every other command.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from polyglot_persistence.adapters.valkey_streams.commands import Commands, error_code
from polyglot_persistence.adapters.valkey_streams.stream import (
    ACK,
    CERTAIN,
    CERTAIN_AFTER,
    GROUP,
    RELEASED_IDLE_MS,
    RELEASED_OWNER,
    STREAM,
    TAKE,
)
from polyglot_persistence.domain.codec import SCHEMA_VERSION
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import Delivery

BLOCK_SECONDS_MAX: Final = 0.25
"""Maximum time that a released message waits before an idle worker looks for it."""

_MESSAGES_MAX: Final = 500
"""Messages taken in one step, which takes about 2 ms and blocks all other commands."""

_DIGITS_MAX: Final = 18
"""Of a number in a field; longer ones are neither times nor versions."""


@dataclass(eq=False)
class StreamsConsumer:
    """`ports.Consumer`; see `ValkeyStreamsQueue.consume`."""

    name: str
    commands: Commands
    blocking: Commands
    _: KW_ONLY
    orders_max: int
    claim_idle_ms: int
    _held: dict[object, int] = field(default_factory=dict, init=False)
    _has_asked: bool = field(default=False, init=False)
    _room: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _fetching: "asyncio.Task[Sequence[Delivery]] | None" = field(default=None, init=False)
    _leaving: bool = field(default=False, init=False)
    _dead: UnavailableError | None = field(default=None, init=False)

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Return the available messages; one caller at a time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        while True:
            if self._dead is not None:
                raise UnavailableError(str(self._dead)) from self._dead
            if self._fetching is None:
                self._fetching = asyncio.create_task(self._fetch(deadline))
            # A canceled caller leaves the task behind; its result is for the next caller.
            deliveries = await asyncio.shield(self._fetching)
            self._fetching = None
            if deliveries or loop.time() >= deadline:
                return deliveries

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge and delete in one step."""
        ids = self._forget(deliveries)
        if ids and self._dead is None:
            with self._failing_quietly():
                await self.commands.execute("EVAL", ACK, 1, STREAM, GROUP, *ids)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give them an owner that never reads and an idle time that lets any worker claim them.

        Messages of a newer schema go to newer workers only, so they delay no others.
        """
        by_owner: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            is_newer = delivery.schema > SCHEMA_VERSION
            owner = f"{RELEASED_OWNER}-{delivery.schema}" if is_newer else RELEASED_OWNER
            by_owner.setdefault(owner, []).append(delivery)
        for owner, released in by_owner.items():
            ids = self._forget(released)
            if self._dead is None:
                with self._failing_quietly():
                    await self.commands.execute(
                        *("XCLAIM", STREAM, GROUP, owner, 0, *ids),
                        *("IDLE", RELEASED_IDLE_MS, "JUSTID"),
                    )

    async def close(self) -> None:
        """Let the running read end, so that nothing more is delivered here."""
        self._leaving = True
        self._room.set()
        if self._fetching is not None:
            await asyncio.gather(self._fetching, return_exceptions=True)
            self._fetching = None
        await self.blocking.close()

    async def _fetch(self, deadline: float) -> Sequence[Delivery]:
        try:
            return await self._fetch_until(deadline)
        except (UnavailableError, UnknownOutcomeError) as error:
            self._dead = UnavailableError(f"the queue's channel is gone: {error}")
            raise self._dead from error

    async def _fetch_until(self, deadline: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        while not self._leaving:
            room = self.orders_max - sum(self._held.values())
            if room > 0 and (deliveries := await self._take(room)):
                return deliveries
            left_seconds = deadline - loop.time()
            if left_seconds <= 0 or self._leaving:
                break
            if room <= 0:
                await self._wait_for_room(left_seconds)
            elif deliveries := await self._block(min(left_seconds, BLOCK_SECONDS_MAX)):
                return deliveries
        return []

    async def _wait_for_room(self, seconds: float) -> None:
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._room.wait()

    async def _take(self, orders: int) -> Sequence[Delivery]:
        taken = await self.commands.execute(
            *("EVAL", TAKE, 2, STREAM, CERTAIN_AFTER, GROUP, self.name, orders, _MESSAGES_MAX),
            *(self.claim_idle_ms, RELEASED_OWNER, SCHEMA_VERSION),
        )
        return await self._hold(taken)

    async def _block(self, seconds: float) -> Sequence[Delivery]:
        milliseconds = max(1, int(seconds * 1000))  # 0 would block forever
        try:
            reply = await self.blocking.execute(
                *("XREADGROUP", "GROUP", GROUP, self.name, "COUNT", 1),
                *("BLOCK", milliseconds, "STREAMS", STREAM, ">"),
            )
        except UnavailableError as error:
            if error_code(error) in {"NOGROUP", "UNBLOCKED"}:
                return []  # the stream was deleted; the next take creates it
            raise
        if reply is None:
            return []
        return await self._hold([(entry_id, 0, fields) for entry_id, fields in reply[0][1]])

    async def _hold(self, taken: Sequence[tuple[bytes, int, list[bytes]]]) -> Sequence[Delivery]:
        """Return deliveries; a message whose history is uncertain counts as redelivered.

        The check follows the delivery, so that a server whose reign has changed since cannot
        deliver a message that it has forgotten delivering:
        test_what_a_restarted_server_has_may_have_been_delivered.
        """
        if not taken and self._has_asked:
            return []
        self._has_asked = True  # once even without a message: later ones are certain
        certain_after = _position(
            await self.commands.execute("EVAL", CERTAIN, 2, STREAM, CERTAIN_AFTER)
        )
        return [
            self._delivery(
                entry_id, fields, max(deliveries, int(_position(entry_id) <= certain_after))
            )
            for entry_id, deliveries, fields in taken
        ]

    def _delivery(self, entry_id: bytes, fields: list[bytes], redeliveries: int) -> Delivery:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        body = values.pop(b"body", b"")
        headers = {name.decode(errors="replace"): _header(one) for name, one in values.items()}
        delivery = Delivery.read(entry_id, body, headers, redeliveries)
        self._held[entry_id] = max(delivery.orders, 1)
        return delivery

    def _forget(self, deliveries: Sequence[Delivery]) -> list[Any]:
        ids = [delivery.tag for delivery in deliveries]
        for entry_id in ids:
            self._held.pop(entry_id, None)
        self._room.set()
        return ids

    @contextlib.contextmanager
    def _failing_quietly(self) -> Iterator[None]:
        """Note that the channel is gone; the messages it held come again."""
        try:
            yield
        except (UnavailableError, UnknownOutcomeError) as error:
            self._dead = UnavailableError(f"the queue's channel is gone: {error}")


def _position(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def _header(value: bytes) -> int | str:
    """Return a field as a whole number if it is one."""
    if value.isdigit() and len(value) <= _DIGITS_MAX:
        return int(value)
    return value.decode(errors="replace")
