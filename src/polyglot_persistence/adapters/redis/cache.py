"""The write-behind cache over Redis or Valkey.

Invariant: a dirty entry and its mark in the dirty set are written in one atomic step. An entry gets
its time to live and loses its mark in one atomic step, too.
Invariant: only `domain.codec` knows the form of an entry; the scripts compare its first byte.
Invariant: the scripts declare every key they touch.
"""

import contextlib
from collections.abc import Awaitable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from polyglot_persistence.adapters.redis import durability, keys
from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.adapters.redis.connection import Argument, RedisConnection, ReplyError
from polyglot_persistence.adapters.redis.script import Script
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import Entry, EntryState
from polyglot_persistence.domain.order import AcceptedOrder, from_micros, to_micros
from polyglot_persistence.errors import PoisonError, UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.cache import AcceptReply, Backlog, CacheRead, Settled, Unit
from polyglot_persistence.ports.state import StoreState, StoreWarning
from polyglot_persistence.telemetry import logger

CLEAN_TTL_SECONDS_DEFAULT: Final = 86_400

_SETTLE_ORDERS_MAX: Final = 500
"""Orders per run of the script, which takes about a millisecond and blocks all other commands. Only
a bulk may exceed it, by up to twice."""

_REFUSED_BEFORE_ANY_WRITE: Final = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    }
)
"""Error codes of a script refused at its start; a script is not stopped with these after its first
write (`scriptVerifyWriteCommandAllow` in Redis 7's script.c)."""

_ACCEPT: Final = Script("accept")
_SETTLE: Final = Script("settle")
_FORGET_DEAD: Final = Script("forget_dead")
_FORGET_STRAY: Final = Script("forget_stray")
_BEGIN_WARMING: Final = Script("begin_warming")
_COPY_EPOCH: Final = Script("copy_epoch")
_SCRIPTS: Final = (_ACCEPT, _SETTLE, _FORGET_DEAD, _FORGET_STRAY, _BEGIN_WARMING, _COPY_EPOCH)

_STRAY: Final = (EntryState.CLEAN.value, EntryState.DEAD.value)

_REPLICATED_MS_MAX: Final = 500
"""Maximum time that WAIT blocks the connection while the queue is away and a replica lags."""

_REPLICATED_SECONDS: Final = 3_600
"""A vanished replica may come back and be promoted for this long."""

_log = logger("cache")


class RedisCache:
    """`ports.Cache`. The client is shared; its owner closes it.

    `durable` says whether the server fsyncs before it answers, if that cannot be queried.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        clean_ttl_seconds: int = CLEAN_TTL_SECONDS_DEFAULT,
        durable: bool | None = None,
    ) -> None:
        self._client = client
        self._clean_ttl_seconds = clean_ttl_seconds
        self._durable_as_set = durable
        self._server = durability.ServerFacts("", "", durable or False, ())
        client.on_connect(self._greet)

    async def accept(self, units: Sequence[Unit]) -> AcceptReply:
        """Store units; an id that occurs twice in a batch is found the second time.

        A unit's members were accepted at one moment, so one score is sent for all of them.
        """
        singles = [unit for unit in units if len(unit.members) == 1]
        bulks = [unit for unit in units if len(unit.members) > 1]
        names: list[bytes] = [keys.DIRTY]
        arguments: list[Argument] = [keys.ID_BEGIN, len(singles), len(bulks)]
        arguments += [len(unit.members) for unit in bulks]
        for unit in (*singles, *bulks):
            names += [keys.entry(accepted.order.id) for accepted, _ in unit.members]
            arguments.append(to_micros(unit.members[0].accepted.accepted_at))
            arguments += codec.encode_entries(EntryState.DIRTY, unit.members)
        await self._client.connection()
        server = self._server
        try:
            backlog, found = await _ACCEPT.run(self._client, names, arguments)
        except ReplyError as error:
            if error.code in _REFUSED_BEFORE_ANY_WRITE:
                raise
            raise UnknownOutcomeError(f"the accept script failed: {error}") from error
        # If the connection was renewed meanwhile, neither server is known to have the batch.
        is_same = server.reign == self._server.reign
        return AcceptReply(
            {UUID(found[n].decode()): found[n + 1] for n in range(0, len(found), 2)},
            backlog,
            is_same and server.durable and self._server.durable,
            server.reign if is_same else "",
        )

    async def read(self, ids: Sequence[UUID]) -> CacheRead:
        """Return entries and the epoch's copy with one MGET."""
        connection = await self._client.connection()
        server = self._server  # of this connection: there is no await in between
        epoch, *entries = await _reading(
            connection.execute("MGET", keys.epoch(server.reign), *map(keys.entry, ids))
        )
        return CacheRead(entries, _text(epoch), server.reign, server.had_replicas)

    async def backfill(self, orders: Sequence[AcceptedOrder]) -> None:
        if not orders:
            return
        ttl = self._clean_ttl_seconds
        await self._client.pipeline(
            *[
                (
                    "SET",
                    keys.entry(accepted.order.id),
                    _entry(EntryState.CLEAN, accepted),
                    "NX",
                    "EX",
                    ttl,
                )
                for accepted in orders
            ]
        )

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Overwrite entries, in pieces that contain whole units."""
        commands = []
        for piece in pieces(settled, _SETTLE_ORDERS_MAX):
            names: list[bytes] = [keys.DIRTY]
            arguments: list[Argument] = [self._clean_ttl_seconds]
            for state, accepted, decided in piece:
                name = keys.entry(accepted.order.id)
                names.append(name)
                text = b"" if decided is None else codec.encode_order(decided.order)
                arguments += (keys.member(name), _entry(state, accepted), text)
            commands.append(_SETTLE.command(names, arguments))
        if commands:
            await _SETTLE.run_each(self._client, commands)

    async def forget_dead(self, ids: Sequence[UUID]) -> None:
        await _FORGET_DEAD.run(self._client, [keys.entry(order_id) for order_id in ids], ())

    async def dirty_before(self, bound: datetime, orders_max: int) -> Sequence[Entry]:
        """Return the oldest dirty entries, with all that were accepted in the same microsecond.

        So units stay whole, since their members share their time of acceptance. An entry that
        cannot be decoded (a newer version wrote it) is passed over and stays dirty.
        """
        low, high = b"-inf", b"(%d" % to_micros(bound)
        while True:
            marks = await self._marks(low, high, orders_max)
            entries = await self._dirty_entries([order_id for order_id, _ in marks])
            if entries or len(marks) < orders_max:
                return entries
            low = b"(" + marks[-1][1]

    async def backlog(self) -> Backlog:
        orders, oldest = await _reading(
            self._client.pipeline(("ZCARD", keys.DIRTY), ("ZRANGE", keys.DIRTY, 0, 0, "WITHSCORES"))
        )
        return Backlog(orders, from_micros(int(float(oldest[1]))) if oldest else None)

    async def reigns(self, reign: str, epoch: str | None) -> bool:
        """Query role, reign and eviction policy, and then the copy.

        In the other order, copy and policy could change in between.
        """
        connection = await self._client.connection()
        info, [copy] = await _reading(
            connection.request([durability.ASK_RULE, ("MGET", keys.epoch(reign))])  # as `read` does
        )
        rule = durability.rule_of(info)
        is_primary = bool(reign) and rule.is_primary and rule.reign == reign
        return is_primary and not rule.evicts_dirty and _text(copy) == epoch

    async def survives_failover(self, reign: str) -> bool:
        """Query fsync policy and replicas; wait up to half a second for all of them.

        All, since any may be promoted, even one that has left within the last hour: then there is
        nothing to wait for.
        """
        connection = await self._client.connection()
        now = await _reading(durability.ask(connection, durable=self._durable_as_set))
        if not (now.is_primary and now.durable and reign and now.reign == reign):
            return False
        seen = await self._replicas_seen(connection)
        if not (seen or now.replicas or now.had_replicas):
            return True
        wanted = now.replicas
        if wanted < max(seen, 1):
            return False  # at once: one that has left confirms nothing
        written, replicas = await _reading(
            connection.request([("SET", keys.FENCE, ""), ("WAIT", wanted, _REPLICATED_MS_MAX)])
        )
        # Without the write, WAIT counts from the last write of this connection, if there was any.
        return written == b"OK" and isinstance(replicas, int) and replicas >= wanted

    async def begin_warming(self, token: str) -> None:
        """Store the token and remove the copy, also at the memory limit."""
        await self._client.connection()
        names = [keys.WARM_TOKEN, keys.epoch(self._server.reign)]
        await _BEGIN_WARMING.run(self._client, names, [token])

    async def end_warming(self) -> None:
        await self._client.execute("DEL", keys.WARM_TOKEN)

    async def copy_epoch(self, epoch: str, token: str, reign: str) -> bool:
        """Store the epoch's copy if the token is there, also at the memory limit.

        On a server of another reign no reader uses the copy.
        """
        names = [keys.WARM_TOKEN, keys.epoch(reign)]
        stored = await _COPY_EPOCH.run(self._client, names, [token, epoch])
        return bool(stored)

    async def ping(self) -> StoreState:
        """Query the server again, since its settings can change while it runs.

        A server that may evict dirty entries loses the copy of the epoch: once its policy is
        corrected, there is no trace of its evictions.
        """
        connection = await self._client.connection()
        await _reading(self._meet(connection))
        if self._server.evicts_dirty:
            copy = keys.epoch(self._server.reign)
            await _reading(connection.execute("DEL", keys.WARM_TOKEN, copy))
        if replicas := self._server.replicas:
            with contextlib.suppress(UnavailableError, UnknownOutcomeError):
                if replicas >= await self._replicas_seen(connection):  # else one has left
                    await connection.execute(
                        "SET", keys.REPLICATED, replicas, "EX", _REPLICATED_SECONDS
                    )
        return await self._state()

    async def _state(self) -> StoreState:
        server = self._server
        parts, warnings = [server.version], server.warnings
        if server.replicas:
            parts.append(f"{server.replicas} replica{'s' * (server.replicas > 1)}")
        try:
            views = await self._client.sentinels()
        except UnavailableError as error:  # the server itself answers
            warnings += (StoreWarning(error.reason, "start the Sentinels"),)
        else:
            if views is not None:
                parts.append(f"{views.answers} of {views.answers + len(views.errors)} Sentinels")
                warnings += views.warnings()
                if not server.replicas:
                    warnings += (StoreWarning("the primary has no replica to promote", "add one"),)
        return StoreState(", ".join(parts), warnings)

    async def _replicas_seen(self, connection: RedisConnection) -> int:
        """Return the maximum number of replicas seen at once within the last hour."""
        seen = await _reading(connection.execute("GET", keys.REPLICATED))
        return 0 if seen is None else int(seen or 1)  # earlier versions left it empty

    async def _greet(self, connection: RedisConnection) -> None:
        # Error replies do not matter here: a missing script is loaded when it is run.
        await connection.request([script.load() for script in _SCRIPTS])
        await self._meet(connection)

    async def _meet(self, connection: RedisConnection) -> None:
        """Query the server behind a connection, before any other command uses it.

        Raises:
            UnavailableError: it is a node of a cluster, which has a part of the orders alone; or a
                replica, which may lack its primary's latest orders.
        """
        server = await durability.ask(connection, durable=self._durable_as_set)
        if server.is_cluster_node:
            connection.close("a node of a cluster is no cache")
            raise UnavailableError(
                "the server behind REDIS_ADDR is a node of a cluster",
                remedy="clusters are not supported; use one primary, with replicas if you like",
            )
        if not server.is_primary:
            connection.close("a replica is no cache")
            raise UnavailableError("the server behind REDIS_ADDR is a replica, not a primary")
        self._server = server

    async def _marks(self, low: bytes, high: bytes, orders_max: int) -> list[tuple[bytes, bytes]]:
        """Return (id, score) of the oldest dirty marks; all of the last score, even if many."""
        page = await self._range(low, high, "LIMIT", 0, orders_max)
        if len(page) < orders_max:
            return page
        last = page[-1][1]
        whole = {**dict(page), **dict(await self._range(last, last))}
        return list(whole.items())

    async def _range(self, low: bytes, high: bytes, *limit: Argument) -> list[tuple[bytes, bytes]]:
        flat = await _reading(
            self._client.execute("ZRANGE", keys.DIRTY, low, high, "BYSCORE", *limit, "WITHSCORES")
        )
        return list(zip(flat[::2], flat[1::2], strict=True))

    async def _dirty_entries(self, members: Sequence[bytes]) -> list[Entry]:
        if not members:
            return []
        ids = [UUID(member.decode()) for member in members]
        raws = await _reading(self._client.execute("MGET", *map(keys.entry, ids)))
        entries = []
        strays = []
        for order_id, raw in zip(ids, raws, strict=True):
            if raw is None or raw[:1] in _STRAY:
                strays.append(order_id)
                continue
            try:
                entries.append(codec.decode_entry(raw))
            except PoisonError as error:
                _log.error("entry_unreadable", order_id=order_id, reason=str(error))
        if strays:
            names = [keys.entry(order_id) for order_id in strays]
            members = [keys.member(name) for name in names]
            await _reading(_FORGET_STRAY.run(self._client, [keys.DIRTY, *names], members))
        return entries


def pieces(settled: Sequence[Settled], orders_max: int) -> Iterator[Sequence[Settled]]:
    """Yield neighbors together, cut at the first end of a unit from `orders_max` on."""
    piece: list[Settled] = []
    for one in settled:
        if len(piece) >= orders_max and _unit_id(one) != _unit_id(piece[-1]):
            yield piece
            piece = []
        piece.append(one)
    if piece:
        yield piece


def _unit_id(settled: Settled) -> UUID:
    """Return the unit of the decided order: a row does not name its own."""
    return (settled.decided or settled.accepted).unit_id


def _entry(state: EntryState, accepted: AcceptedOrder) -> bytes:
    return codec.encode_entry(state, accepted, codec.encode_order(accepted.order))


def _text(reply: bytes | None) -> str | None:
    return None if reply is None else reply.decode()


async def _reading(call: Awaitable[Any]) -> Any:
    """Return the reply to read-only commands: without a reply they had no effect."""
    try:
        return await call
    except UnknownOutcomeError as error:
        raise UnavailableError(str(error)) from error
