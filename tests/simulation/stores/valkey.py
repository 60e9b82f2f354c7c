"""One simulated Valkey: its data, its role, what it refuses, and what can happen to it.

The embedded deployment has cache and queue in one of them, so both are tables of one journal: a
lost tail takes entries and messages along in the order of their effects.

Like the real one it keeps the connections of those who met it as a primary when it is demoted, and
answers their reads; only the adapter's rules keep a false answer from a client.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple
from uuid import UUID

from polyglot_persistence.domain.order import to_micros
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.queue import Message
from tests.simulation.stores.journal import Journal, Table

Fsync = Literal["always", "everysec", "no"]

FSYNC_SECONDS = {"always": 0.0, "everysec": 2.0, "no": 30.0}
"""How much of the log a power cut may take (redis.io, "Redis persistence"; 30 s is Linux's)."""

ONLY = "only"
"""The key of a table's only row."""

BACKLOG_SECONDS = 3_600.0
"""`repl-backlog-ttl`: for so long a server remembers that it had a replica."""

REPLICATED_SECONDS = 3_600.0
"""For so long the adapter remembers how many replicas it saw at once."""


class Value(NamedTuple):
    """A value and when it expires, in seconds of the server's clock."""

    raw: bytes
    expires_at: float | None


class Replicated(NamedTuple):
    """How many replicas were seen at once, and until when that counts."""

    replicas: int
    expires_at: float


class Pending(NamedTuple):
    """Who has a message of the stream, since when, and how often it was delivered."""

    owner: str
    delivered_at: float
    deliveries: int


class Certain(NamedTuple):
    """Up to which message it is not certain that it never was delivered, as found in a reign."""

    reign: str
    last_id: int


class ValkeyServer:
    """A server process with its data directory. It is up, a primary, and empty at first."""

    def __init__(
        self,
        clock: Clock,
        name: str = "valkey",
        *,
        fsync: Fsync = "always",
        policy: str = "volatile-ttl",
    ) -> None:
        self.clock = clock
        self.name = name
        """Of this one among all: its reigns are named by it."""
        self.fsync: Fsync = fsync
        self.policy = policy
        self.is_up = True
        self.is_primary = True
        self.is_full = False
        """At `maxmemory`: refuses what may take memory, before any write."""
        self.refuses_writes = False
        """MISCONF, NOREPLICAS: answers reads, refuses every write."""
        self.connections = 0
        """Grows whenever all connections are cut."""
        self.primary: ValkeyServer | None = None
        self.link_is_up = True
        """Of a replica: whether effects of its primary reach it."""
        self.stands_still = False
        """Of a replica: it is connected, and takes nothing."""
        self.on_change: list[Callable[[], None]] = []
        self.journal = Journal()
        self.entries: Table[UUID, Value] = Table(self.journal)
        self.dirty: Table[UUID, int] = Table(self.journal)
        self.copies: Table[str, str] = Table(self.journal)
        self.tokens: Table[str, str] = Table(self.journal)
        self.messages: Table[int, Message] = Table(self.journal)
        self.pending: Table[int, Pending] = Table(self.journal)
        self.groups: Table[str, Certain | None] = Table(self.journal)
        """The stream's one group, once it is created."""
        self.last_ids: Table[str, int] = Table(self.journal)
        self.replicated: Table[str, Replicated] = Table(self.journal)
        self._written_at: list[float] = []
        self._synced = 0
        """How many effects are certainly on its disk, since it was told to sync each."""
        self._replicas: list[ValkeyServer] = []
        self._had_replica_at = float("-inf")
        self._reigns = itertools.count(1)
        self.reign = ""
        self._reign_anew()

    # --- what its clients do -----------------------------------------------------------------

    def check(self) -> None:
        """Raise if nobody listens."""
        if not self.is_up:
            raise UnavailableError("Valkey is away")

    @contextmanager
    def effect(self, *, takes_memory: bool = False) -> Iterator[None]:
        """Let a command or script write, in one step."""
        self.check()
        if not self.is_primary:
            raise UnavailableError("READONLY You can't write against a read only replica.")
        if self.refuses_writes:
            raise UnavailableError("MISCONF Valkey is configured to refuse writes")
        if takes_memory and self.is_full:
            raise UnavailableError("OOM command not allowed when used memory > 'maxmemory'.")
        with self.journal.effect():
            yield
        self._note_times()

    def entry(self, order_id: UUID) -> bytes | None:
        """Return an entry that has not expired."""
        value = self.entries.get(order_id)
        if value is None or (
            value.expires_at is not None and value.expires_at <= self.clock.monotonic()
        ):
            return None
        return value.raw

    def append(self, message: Message) -> None:
        """XADD: the id is the time, or one more than the last if that is later."""
        last = self.last_ids.get(ONLY, 0)
        message_id = max(to_micros(self.clock.now()), last + 1)
        self.last_ids.put(ONLY, message_id)
        self.messages.put(message_id, message)

    def changed(self) -> None:
        """Wake those who wait for the stream."""
        for wake in list(self.on_change):
            wake()

    @property
    def is_durable(self) -> bool:
        """Whether it fsyncs before it answers and evicts nothing dirty."""
        return self.fsync == "always" and not self.evicts_dirty

    @property
    def evicts_dirty(self) -> bool:
        """Whether its policy may evict an entry without a time to live."""
        return self.policy.startswith("allkeys")

    @property
    def had_replicas(self) -> bool:
        """Whether it has a replica, or had one lately and since it began: it keeps a backlog."""
        passed = self.clock.monotonic() - self._had_replica_at
        return self.connected_replicas > 0 or passed < BACKLOG_SECONDS

    @property
    def connected_replicas(self) -> int:
        """How many replicas get what it writes."""
        return sum(one.is_up and one.link_is_up for one in self._replicas)

    @property
    def replicas_seen(self) -> int:
        """How many replicas were noted to be there at once."""
        seen = self.replicated.get(ONLY)
        return 0 if seen is None or seen.expires_at <= self.clock.monotonic() else seen.replicas

    # --- what happens to it ------------------------------------------------------------------

    def cut_connections(self) -> None:
        """End every connection; whoever was connected connects anew."""
        self.connections += 1
        self.changed()

    def stop(self) -> None:
        """Take it away."""
        self.is_up = False
        self.cut_connections()

    def start(self, *, lost_effects: int = 0) -> None:
        """Give it back under a new reign, without the last effects of its log."""
        self.journal.roll_back(lost_effects)
        self._note_times()
        self.is_up = True
        self._had_replica_at = float("-inf")
        self._reign_anew()
        self.changed()

    def lost_by_power_cut(self) -> int:
        """Return how many effects are not known to be on its disk.

        What was written while it had to sync each is there, whatever it is set to since.
        """
        if self.fsync == "always":
            return 0
        safe = self.clock.monotonic() - FSYNC_SECONDS[self.fsync]
        return sum(written_at > safe for written_at in self._written_at[self._synced :])

    def wipe(self) -> None:
        """FLUSHALL: everything is gone, under the same reign; replicas get it as an effect."""
        with self.journal.effect():
            for table in self.journal.tables:
                table.clear()
        self._note_times()
        self.changed()

    def evictable(self) -> list[UUID]:
        """Return the entries that its policy may evict at the memory limit."""
        if self.policy == "noeviction":
            return []
        return [
            order_id
            for order_id, value in self.entries.items()
            if self.evicts_dirty or value.expires_at is not None
        ]

    def evict(self, order_id: UUID) -> None:
        """Remove an entry as the policy does; its mark is another key and stays."""
        assert order_id in self.evictable()
        with self.journal.effect():
            self.entries.remove(order_id)
        self._note_times()

    # --- replication -------------------------------------------------------------------------

    def replicate(self, primary: "ValkeyServer") -> None:
        """Become a replica of another server, with its data as of now (a full resync).

        The first replica of a server begins another reign of it (`syncCommand` in replication.c).
        """
        if not primary.had_replicas:
            primary._reign_anew()
        self.demote(primary)
        self.link_is_up = True
        primary.ship()
        self.changed()

    def demote(self, primary: "ValkeyServer") -> None:
        """Become a replica that has its own data until its link is up (`replica-serve-stale-data`).

        Its reads go on, its writes are refused.
        """
        for server in list(self._replicas):
            server.primary = None
        self._replicas = []
        self.is_primary = False
        self.primary = primary
        self.link_is_up = False
        primary._replicas.append(self)

    def cut_off(self) -> None:
        """Let nothing more reach this replica."""
        self.link_is_up = False
        if self.primary is not None:
            self.primary._had_replica_at = self.clock.monotonic()

    def ship(self) -> None:
        """Send to the replicas that can be reached what they do not have yet.

        One that knew the server under an earlier reign gets everything anew.
        """
        for replica in self._replicas:
            if not (replica.is_up and replica.link_is_up) or replica.stands_still:
                continue
            if replica.reign == self.reign:
                replica.journal.take_over(self.journal.effects[len(replica.journal.effects) :])
            else:
                replica.journal.copy(self.journal)
                replica.reign = self.reign
            replica._note_times()

    def wait(self) -> int:
        """WAIT: ship, and return how many replicas have everything."""
        self.ship()
        return self.connected_replicas - sum(one.stands_still for one in self._replicas)

    def promote(self) -> None:
        """Make a replica a primary with what has reached it, under a new reign."""
        if self.primary is not None:
            self.primary._lose(self)
        self.primary = None
        self.is_primary = True
        self._had_replica_at = self.clock.monotonic()  # its backlog is the old primary's
        self._reign_anew()
        self.changed()

    def _lose(self, replica: "ValkeyServer") -> None:
        self._replicas.remove(replica)
        self._had_replica_at = self.clock.monotonic()

    def _reign_anew(self) -> None:
        if self.is_primary:
            self.reign = f"{self.name}-{next(self._reigns)}"

    def _note_times(self) -> None:
        """Keep for each effect of the log when it was written."""
        effects = len(self.journal.effects)
        self._synced = effects if self.fsync == "always" else min(self._synced, effects)
        del self._written_at[effects:]
        missing = effects - len(self._written_at)
        self._written_at += [self.clock.monotonic()] * missing


class ValkeyAddress:
    """Where processes look for the primary: a name that a failover lets mean another server."""

    def __init__(self, server: ValkeyServer) -> None:
        self.server = server


class Session:
    """One process's connection to whatever server is behind an address, opened when needed."""

    def __init__(self, address: ValkeyAddress) -> None:
        self._address = address
        self._server: ValkeyServer | None = None
        self._connections = -1
        self.reign = ""
        """Of the server when it was met."""
        self.is_durable = False
        """As the server said when it was met, or pinged."""

    def server(self) -> ValkeyServer:
        """Return the connected server.

        Raises:
            UnavailableError: there is none, or it is a replica.
        """
        server = self._server
        if server is None or self._connections != server.connections:
            self._server = None
            server = self._address.server
            server.check()
            if not server.is_primary:
                raise UnavailableError("the server is a replica, not a primary")
            self._server, self._connections = server, server.connections
            self.meet(server)
        server.check()
        return server

    def meet(self, server: ValkeyServer) -> None:
        """Learn what the server is."""
        if not server.is_primary:
            self.drop()
            raise UnavailableError("the server is a replica, not a primary")
        self.reign, self.is_durable = server.reign, server.is_durable

    def drop(self) -> None:
        """Close the connection: the next use opens another."""
        self._server = None

    @contextmanager
    def writing(self, *, takes_memory: bool = False) -> Iterator[ValkeyServer]:
        """Write in one step; a server that is no primary any more is left."""
        server = self.server()
        if not server.is_primary:
            self.drop()
        with server.effect(takes_memory=takes_memory):
            yield server
