"""The queue over one stream and one consumer group.

A message is a stream entry with the fields body, orders, accepted_at (microseconds) and schema.
Acknowledging deletes it, so the stream holds only unfinished messages.

Invariant: the reply to XADD is the publisher confirm; the server must run `appendfsync always`.
Invariant: a wiped server needs no operator: the next `receive` creates stream and group.
"""

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import chain
from typing import Final

from polyglot_persistence.adapters.valkey_streams.commands import Commands, without_effect
from polyglot_persistence.adapters.valkey_streams.consumer import StreamsConsumer
from polyglot_persistence.adapters.valkey_streams.stream import (
    CONSUMER_SILENT_MS,
    GROUP,
    LEAVE,
    READY,
    RELEASED_IDLE_MS,
    RELEASED_OWNER,
    STREAM,
)
from polyglot_persistence.domain.order import to_micros
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.queue import Message
from polyglot_persistence.ports.state import StoreState, StoreWarning

CLAIM_IDLE_SECONDS_DEFAULT: Final = 30.0
"""No worker holds a delivery for longer without acknowledging it or leaving (the cold cache)."""

_LEFT_COUNTED_MAX: Final = 10_000


class ValkeyStreamsQueue:
    """`ports.Queue`.

    `commands` is shared and closed by its owner; `open_client` makes another connection to the same
    server, on which one consumer blocks and which the consumer closes.
    """

    def __init__(
        self,
        commands: Commands,
        open_client: Callable[[], Commands],
        *,
        claim_idle_seconds: float = CLAIM_IDLE_SECONDS_DEFAULT,
    ) -> None:
        self._commands = commands
        self._open_client = open_client
        self._claim_idle_ms = int(claim_idle_seconds * 1000)
        self._abandoned: set[str] = set()

    async def publish(self, message: Message) -> None:
        """Append the message; refused at the memory limit."""
        await self._commands.execute(
            *("XADD", STREAM, "*", "body", message.body, "orders", message.orders),
            *("accepted_at", to_micros(message.accepted_at), "schema", message.schema),
            *chain.from_iterable(message.trace.items()),
        )

    def unseen_seconds_max(self, hold_seconds: float) -> float:
        """Return the hold limit: longer holds count as ready; nothing is prefetched."""
        return hold_seconds

    @asynccontextmanager
    async def consume(self, *, orders_max: int) -> AsyncIterator[StreamsConsumer]:
        """Consume under a name of its own.

        If the server is away when a consumer leaves, the next consumer of this process hands its
        messages back; otherwise any consumer takes them after `claim_idle_seconds`.

        Raises:
            UnavailableError: the server is away.
        """
        abandoned = frozenset(self._abandoned)
        await without_effect(self._leave(*abandoned))
        self._abandoned -= abandoned
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        consumer = StreamsConsumer(
            name,
            self._commands,
            self._open_client(),
            orders_max=orders_max,
            claim_idle_ms=self._claim_idle_ms,
        )
        try:
            yield consumer
        finally:
            self._abandoned.add(name)
            await consumer.close()
            try:
                await self._leave(name)
                self._abandoned.discard(name)
            except (UnavailableError, UnknownOutcomeError):
                pass  # the next consumer hands these messages back

    async def ready(self) -> int:
        """Return the number of messages that no consumer holds; those of a silent one count."""
        ready = self._commands.execute(
            "EVAL", READY, 1, STREAM, GROUP, self._claim_idle_ms, _LEFT_COUNTED_MAX
        )
        return int(await without_effect(ready))

    async def ping(self) -> StoreState:
        """Return the server's version; check that it confirms only durable writes."""
        info, config = await without_effect(
            self._commands.pipeline(
                ("INFO", "server", "replication", "cluster"),
                ("CONFIG", "GET", "appendonly", "appendfsync"),
            )
        )
        facts = dict(line.partition(":")[::2] for line in info.decode().splitlines())
        if facts.get("cluster_enabled") == "1":
            raise UnavailableError(
                "the server behind RABBITMQ_URL is a node of a cluster",
                remedy="clusters are not supported; use one server",
            )
        if facts.get("role") != "master":
            raise UnavailableError("the server behind RABBITMQ_URL is a replica, not a primary")
        product = facts.get("server_name", "redis")
        version = facts.get(f"{product}_version", "")
        durable = set(config[1::2]) == {b"yes", b"always"}
        return StoreState(
            f"{product.capitalize()} {version} streams",
            ()
            if durable
            else (StoreWarning("not durable", "set appendonly to yes and appendfsync to always"),),
        )

    async def _leave(self, *names: str) -> None:
        await self._commands.execute(
            *("EVAL", LEAVE, 1, STREAM, GROUP, RELEASED_OWNER, RELEASED_IDLE_MS),
            CONSUMER_SILENT_MS,
            *names,
        )
