"""Everything around the processes: the stores that they share, and what goes wrong with them.

Faults that the project does not promise to survive are not let happen: the only copy of an order is
never lost (docs/architecture.md, "What is not covered").
"""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec

from polyglot_persistence.domain import codec
from polyglot_persistence.errors import PoisonError, PolyglotError, UnavailableError
from polyglot_persistence.ports.queue import Message
from tests.simulation import faults
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Caller, Link, Network
from tests.simulation.plan import (
    CALL_FAULTS,
    FAULTS_END,
    PATIENCE_SECONDS,
    WARM_PATIENCE_SECONDS,
    Fault,
    Plan,
)
from tests.simulation.processes import (
    HOLD_SECONDS_MAX,
    ApiProcess,
    Process,
    ProcessClock,
    WorkerProcess,
    settings,
)
from tests.simulation.remotes import Contexts, Ports, remote_stores
from tests.simulation.steps import StoreName
from tests.simulation.stores.broker import Broker, SimulatedRabbitMQ
from tests.simulation.stores.cache import SimulatedCache
from tests.simulation.stores.journal import Effect
from tests.simulation.stores.letters import SimulatedDeadLetters
from tests.simulation.stores.orders import SimulatedLead, SimulatedOrders
from tests.simulation.stores.projections import (
    SimulatedAudit,
    SimulatedRebuildRecord,
    SimulatedSales,
)
from tests.simulation.stores.record import RecordServer
from tests.simulation.stores.search import (
    SearchEngineServer,
    SimulatedContents,
    SimulatedSearch,
    SimulatedTarget,
)
from tests.simulation.stores.streams import SimulatedStreams
from tests.simulation.stores.valkey import Fsync, ValkeyAddress, ValkeyServer

SERVERS: dict[str, tuple[StoreName, ...]] = {
    "cache": ("cache",),
    "queue": ("queue",),
    "valkey": ("cache", "queue"),
    "record": ("record",),
    "search": ("search",),
}

DOUBT_SECONDS = 1.5
"""So long after a fault of the cache a process may still count it as away."""

SILENCE_SECONDS = 0.6
"""After so long without a heartbeat the broker closes a connection."""

SHIP_SECONDS = 0.25
"""Between two times that a replica of the cache gets what it lacks: so much a failover may lose."""


class _Named(msgspec.Struct):
    id: UUID
    product_name: str


class _Item(msgspec.Struct):
    """What of a message's item names the order."""

    order: _Named


_decoder = msgspec.json.Decoder(list[_Item])


class World:
    """Stores, network and processes of one run."""

    def __init__(self, plan: Plan, loop: SimulatedLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.network = Network(loop, plan.seed)
        self.network.striker = self
        clock = ProcessClock(loop, 0.0)
        self.server_clock = clock
        fsync: Fsync = "always" if plan.durable else "everysec"
        self.valkey = ValkeyServer(clock, "valkey", fsync=fsync)
        self.address = ValkeyAddress(self.valkey)
        self.replica: ValkeyServer | None = None
        if plan.replicas:
            self.replica = ValkeyServer(clock, "replica", fsync=fsync)
            self.replica.replicate(self.valkey)
            loop.world_later(SHIP_SECONDS, self._ship)
        self.broker = (
            Broker(clock, silence_seconds=SILENCE_SECONDS) if plan.deployment == "servers" else None
        )
        self.record = RecordServer(clock)
        self.engine = SearchEngineServer(clock)
        self.orders_are_locked = False
        self.published: dict[tuple[UUID, str], int] = {}
        """How often an order, by id and name, has reached the queue."""
        self.names: dict[UUID, set[str]] = {}
        """By id, of the orders that reached cache or queue: of several, if a key is misused."""
        self.excused: dict[tuple[UUID, str], int] = {}
        """Orders whose only copy was lost, with how often they had been published until then."""
        self.doubts: list[tuple[float, float]] = []
        """From when until when the cache alone may not have been enough."""
        self.stale_until = 0.0
        """Until then a process may read from a cache that was demoted."""
        self.left_by_others: list[UUID] = []
        """Ids of entries that a newer version has stored."""
        self.queue_lost = False
        self.lost_rows: dict[UUID, str] = {}
        """By id, the names of orders that a failover of the record has lost."""
        self.troubled: set[str] = set()
        """Stores that something was wrong with, so that an order may have no copy there."""
        self.faults_left = len(plan.faults)
        self._in_force: dict[str, int] = {}
        self._ports: dict[str, Ports] = {}
        self._contexts: list[Contexts] = []
        offsets = iter(plan.clock_offsets)
        limits = settings(plan.dirty_orders_max, audits=plan.audits)
        self.apis = [
            ApiProcess(f"api {n}", loop, ProcessClock(loop, next(offsets)), limits, self._connect)
            for n in range(plan.apis)
        ]
        self.workers = [
            WorkerProcess(
                f"worker {n}", loop, ProcessClock(loop, next(offsets)), limits, self._connect
            )
            for n in range(plan.workers)
        ]
        self.processes: list[Process] = [*self.apis, *self.workers]

    def begin(self) -> None:
        """Start the processes one after another, and arm the faults."""
        for n, process in enumerate(self.processes):
            self.loop.world_later(0.01 * n, process.start)
        for fault in self.plan.faults:
            self.loop.world_later(fault.at, self._due, fault)

    # --- connections -------------------------------------------------------------------------

    def _connect(self, process: Process) -> Any:
        ports = self._make_ports(process.name, process.starts)
        self._ports[process.name] = ports
        contexts = Contexts()
        self._contexts.append(contexts)
        links = {
            store: Link(self.network, process, store)
            for store in ("cache", "queue", "record", "search")
        }
        loop = self.loop

        def cut() -> None:
            ports.queue.kill()
            ports.store.kill()
            loop.world_later(0.0, contexts.end_all)

        process.on_end.append(cut)
        return remote_stores(ports, links, contexts)

    def _make_ports(self, name: str, number: int) -> Ports:
        queue: Any
        if self.broker is None:
            queue = SimulatedStreams(
                self.address, f"{name}-{number}", claim_idle_seconds=HOLD_SECONDS_MAX
            )
        else:
            queue = SimulatedRabbitMQ(self.broker)
        store = SimulatedOrders(self.record)
        cache: Any = SimulatedCache(self.address)
        cache.accept = self._named(cache.accept)
        queue.publish = self._counted(queue.publish)
        letters: Any = SimulatedDeadLetters(self.record)
        letters.turn = self._turn
        setattr(store, "persist", self._refusing_poison(store.persist))  # noqa: B010
        return Ports(
            cache=cache,
            queue=queue,
            store=store,
            letters=letters,
            sales=SimulatedSales(self.record),
            search=SimulatedSearch(self.engine),
            contents=SimulatedContents(self.engine),
            audit=SimulatedAudit(self.record),
            rebuild_record=SimulatedRebuildRecord(self.record),
            target=SimulatedTarget(self.engine),
        )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[SimulatedLead]:
        """Give the turn to whoever finds it free: inside of a call nothing waits."""
        with self.record.session() as session:
            if not self.record.try_lock("dead letters", session):
                raise UnavailableError("another replays or discards")
            yield SimulatedLead(self.record, session)

    def _counted(self, publish: Callable[[Message], Any]) -> Callable[[Message], Any]:
        async def counted(message: Message) -> None:
            await publish(message)
            for order_id, name in orders_of(message):
                self.names.setdefault(order_id, set()).add(name)
                order = order_id, name
                self.published[order] = self.published.get(order, 0) + 1

        return counted

    def _named(self, accept: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def named(units: Any) -> Any:
            for unit in units:
                for accepted, _ in unit.members:
                    self.names.setdefault(accepted.order.id, set()).add(accepted.order.product_name)
            return await accept(units)

        return named

    def _refusing_poison(self, persist: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Refuse orders named so, as a constraint of the operator's own would."""

        async def refusing(batch: Any) -> Any:
            if self.orders_are_locked:
                raise UnavailableError("a lock was not granted in time")
            if any(one.order.product_name.startswith("poison") for one in batch):
                self.record.reading()
                raise PoisonError("a constraint forbids this name")
            return await persist(batch)

        return refusing

    def _ship(self) -> None:
        self.address.server.ship()
        self.loop.world_later(SHIP_SECONDS, self._ship)

    # --- faults ------------------------------------------------------------------------------

    def _due(self, fault: Fault) -> None:
        if fault.step is None:
            self.strike(fault, None)
            return
        self.network.arm(fault)
        patience = WARM_PATIENCE_SECONDS if fault.step == "warm copy" else PATIENCE_SECONDS
        last = min(patience, FAULTS_END - fault.at)
        self.loop.world_later(last, self._lapse, fault)

    def _lapse(self, fault: Fault) -> None:
        if self.network.disarm(fault):
            self.faults_left -= 1

    def strike(self, fault: Fault, caller: Caller | None) -> None:
        """Let a fault happen, and end in its time."""
        self.network.note("fault", fault.kind)
        store = fault.kind.split()[0]
        if store in ("cache", "queue"):
            troubled = self.stores_of(self.server_name(store))
            self.troubled.update(troubled)
            if "cache" in troubled:
                self._doubt(fault.seconds)
        process = next((one for one in self.processes if one is caller), None)
        if process is None:
            process = self.processes[fault.amount % len(self.processes)]
        lasting = faults.BEGIN[fault.kind](self, fault, process)
        self.loop.world_later(fault.seconds if lasting is not None else 0.0, self._end, lasting)

    def met(self, fault: Fault) -> None:
        """Take note of a fault that has found its step; one of a call ends with it."""
        if fault.kind in CALL_FAULTS:
            if fault.step in ("WAIT", "accept script"):
                self._doubt(fault.seconds)
            self.troubled |= {"publish": {"queue"}, "accept script": {"cache"}}.get(
                fault.step or "", set()
            )
            self.loop.world_later(fault.seconds + 1.0, self._end, None)

    def _doubt(self, seconds: float) -> None:
        now = self.loop.now
        self.doubts.append((now, now + seconds + DOUBT_SECONDS))

    def _end(self, ending: Callable[[], None] | None) -> None:
        if ending is not None:
            ending()
        self.faults_left -= 1

    def lasting(
        self,
        kind: str,
        server: str,
        begin: Callable[[], None],
        end: Callable[[], None],
        *,
        state: str = "",
    ) -> Callable[[], None]:
        """Begin what may overlap with more of its kind; return what ends it with the last one.

        `state` names what kinds share: a server that is cache and queue is away as one.
        """
        state = state or kind
        stores = self.stores_of(server)
        self._in_force[state] = self._in_force.get(state, 0) + 1
        if self._in_force[state] == 1:
            begin()
        for store in stores:
            self.network.in_force.setdefault(store, []).append(kind)

        def over() -> None:
            self._in_force[state] -= 1
            for store in stores:
                self.network.in_force[store].remove(kind)
            if self._in_force[state] == 0:
                end()

        return over

    def depth(self, state: str) -> int:
        """Return how many faults there are now that share a state."""
        return self._in_force.get(state, 0)

    def server_name(self, store: str) -> str:
        """Return which server plays a role: embedded, cache and queue are one."""
        return "valkey" if self.broker is None and store in ("cache", "queue") else store

    def stores_of(self, server: str) -> tuple[StoreName, ...]:
        """Return the roles that a server plays."""
        return SERVERS[server]

    def server(self, name: str) -> Any:
        """Return the server of a name as it is now."""
        return {
            "cache": self.address.server,
            "valkey": self.address.server,
            "queue": self.broker,
            "record": self.record,
            "search": self.engine,
        }[name]

    def stand_still(self, process: Process, *, begin: bool) -> None:
        """Let the broker miss a process's heartbeats, or hear them again."""
        queue = self._ports[process.name].queue
        if self.broker is not None:
            (queue.stand_still if begin else queue.go_on)()

    def cut_from_cache(self, process: Process) -> None:
        """Cut one process's connection to the cache, and nobody else's."""
        self._ports[process.name].cache.cut()

    def fail_over_record(self, effects_max: int) -> None:
        """Let a standby take over that lacks up to so many of the last commits.

        What it lacks of the orders is in the cache: of a loss of both nobody promised anything.
        """
        lost = 0
        for effect in itertools.islice(reversed(self.record.journal.effects), effects_max):
            if not self._is_recoverable(effect):
                break
            lost += 1
        before = {i: row.order.product_name for i, row in self.record.orders.items()}
        self.record.fail_over(lost_effects=min(lost, len(self.record.journal.effects) - 1))
        self.lost_rows |= {i: name for i, name in before.items() if i not in self.record.orders}

    def _is_recoverable(self, effect: Effect) -> bool:
        """Whether nothing is lost for good along with a commit: the cache has its orders."""
        record, tables = self.record, self.record.journal.tables
        for change in effect:
            table = tables[change.table]
            if table is record.orders:
                if not (self.valkey_now.is_up and self._is_cached(change.key)):
                    return False
            elif any(table is one for one in (record.letters, record.rebuilds, record.arrivals)):
                return False
        return True

    def _is_cached(self, order_id: UUID) -> bool:
        """Whether the cache holds the order that the record has, and no other one under its id."""
        raw = self.valkey_now.entry(order_id)
        row = self.record.orders.get(order_id)
        if raw is None or row is None:
            return False
        try:
            return codec.decode_entry(raw).accepted.agrees_with(row.order)
        except PoisonError:
            return False

    @property
    def lacks_rows(self) -> bool:
        """Whether a failover has lost orders that are not back, nor replaced under their id."""
        for order_id in self.lost_rows.keys() & self.record.orders.keys():
            name = self.lost_rows.pop(order_id)
            if not self.in_record(order_id, name):
                self._excuse(order_id, name)
        return bool(self.lost_rows)

    def publish_strange(self, message: Message) -> None:
        """Put a message into the queue, if it is there."""
        if self.broker is not None:
            with contextlib.suppress(PolyglotError):
                self.broker.publish(message)
        elif self.valkey_now.is_up:
            with self.valkey_now.journal.effect():
                self.valkey_now.append(message)
            self.valkey_now.changed()

    # --- what the stores hold ----------------------------------------------------------------

    def in_record(self, order_id: UUID, name: str) -> bool:
        """Whether an order is a row, or a dead letter."""
        row = self.record.orders.get(order_id)
        if row is not None and row.order.product_name == name:
            return True
        letters = self.record.letters.values()
        return any(
            row.letter.order_id == order_id and named(name) in row.letter.payload for row in letters
        )

    def in_cache(self, order_id: UUID, name: str) -> bool:
        """Whether the cache holds an order, and not another one under its id."""
        raw = self.valkey_now.entry(order_id)
        return raw is not None and named(name) in raw

    def queued(self) -> Iterator[tuple[UUID, str]]:
        """Yield id and name of the orders of all messages, held or not."""
        messages = self.valkey_now.messages if self.broker is None else self.broker.messages
        return itertools.chain.from_iterable(map(orders_of, messages.values()))

    @property
    def valkey_now(self) -> ValkeyServer:
        """The server behind the cache's address."""
        return self.address.server

    def excuse_cache(self, lost: Iterable[UUID]) -> None:
        """Note which of the entries were the only copies: nobody promised to survive that."""
        if "queue" not in self.troubled:
            return  # then each order is, or will be, in the queue as well
        queued = set(self.queued())
        for order_id in lost:
            for name in sorted(self.names.get(order_id, ())):
                if (order_id, name) not in queued and not self.in_record(order_id, name):
                    self._excuse(order_id, name)

    @property
    def strange_ids(self) -> list[UUID]:
        """Those entries of a newer version that the cache has not lost."""
        return [i for i in self.left_by_others if i in self.valkey_now.entries]

    def excuse_queue(self) -> None:
        """Note which orders are nowhere but in the queue."""
        if "cache" not in self.troubled:
            return
        for order_id, name in dict.fromkeys(self.queued()):
            if not self.in_cache(order_id, name) and not self.in_record(order_id, name):
                self._excuse(order_id, name)

    def _excuse(self, order_id: UUID, name: str) -> None:
        self.excused[order_id, name] = self.published.get((order_id, name), 0)

    def still_excused(self) -> list[tuple[UUID, str]]:
        """Return the orders whose only copy was lost, and of which none was made since."""
        return [order for order, n in self.excused.items() if n == self.published.get(order, 0)]

    def heal_versions(self) -> None:
        """Let a newer worker come that takes the messages of its version."""
        messages: Any = self.valkey_now.messages if self.broker is None else self.broker.messages
        newer = [i for i, message in messages.items() if message.schema == faults.NEWER_SCHEMA]
        if not newer:
            return
        journal = self.valkey_now.journal if self.broker is None else self.broker.journal
        with journal.effect():
            for message_id in newer:
                messages.remove(message_id)
                if self.broker is None:
                    self.valkey_now.pending.remove(message_id)


def orders_of(message: Message) -> list[tuple[UUID, str]]:
    """Return id and name of each of a message's orders; none of a form that is not known."""
    if message.schema == faults.NEWER_SCHEMA:
        return []
    items = _decoder.decode(message.body)
    return [(item.order.id, item.order.product_name) for item in items]


def named(name: str) -> bytes:
    """Return what the bytes of an order of this name contain, and those of no other."""
    return b'"product_name":"%b"' % name.encode()
