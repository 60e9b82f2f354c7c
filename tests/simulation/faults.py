"""What each kind of fault does when it strikes, and how it ends."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from polyglot_persistence.domain.codec import SCHEMA_VERSION
from polyglot_persistence.domain.order import to_micros
from polyglot_persistence.ports.queue import Message
from tests.simulation.plan import Fault
from tests.simulation.processes import Process
from tests.simulation.stores.valkey import Value

if TYPE_CHECKING:
    from tests.simulation.world import World

End = Callable[[], None]
Begin = Callable[["World", Fault, Process], End | None]

NEWER_SCHEMA = SCHEMA_VERSION + 1

STALE_SECONDS = 5.0
"""So long, at most, a process may go on with a server that was demoted."""

# --- processes -------------------------------------------------------------------------------


def _pause(world: "World", _fault: Fault, process: Process) -> End | None:
    return _stand_still(world, process, missed_seconds=0.0)


def _suspend(world: "World", fault: Fault, process: Process) -> End | None:
    return _stand_still(world, process, missed_seconds=fault.seconds)


def _stand_still(world: "World", process: Process, *, missed_seconds: float) -> End | None:
    execution = process.execution
    if not execution.alive or execution.paused:
        return None
    execution.paused = True
    world.stand_still(process, begin=True)

    def go_on() -> None:
        if execution.alive:
            world.stand_still(process, begin=False)
            world.loop.resume(execution, missed_seconds=missed_seconds)

    return go_on


def _kill(_world: "World", _fault: Fault, process: Process) -> End | None:
    process.kill()
    return process.start


def _stop(world: "World", fault: Fault, process: Process) -> End | None:
    process.stop()

    def start() -> None:
        if process.execution.alive and process.stopping:
            world.loop.world_later(0.2, start)
        else:
            process.start()

    return start


def _clock(_world: "World", fault: Fault, process: Process) -> End | None:
    clock = process.clock
    variant = fault.amount % 3
    if variant == 0:
        clock.stands_at = process.loop.now

        def go_on() -> None:
            clock.stands_at = None

        return go_on
    clock.offset_seconds += min(fault.seconds, 2.0) * (1 if variant == 1 else -1)
    return None


# --- stores that do not answer ---------------------------------------------------------------


def _away(name: str) -> Begin:
    def begin(world: "World", _fault: Fault, _process: Process) -> End | None:
        server = world.server_name(name)

        def stop() -> None:
            world.server(server).stop()

        def start() -> None:
            world.server(server).start()

        return world.lasting(f"{name} away", server, stop, start, state=f"{server} away")

    return begin


def _frozen(name: str) -> Begin:
    def begin(world: "World", _fault: Fault, _process: Process) -> End | None:
        server = world.server_name(name)
        stores = world.stores_of(server)
        return world.lasting(
            f"{name} frozen",
            server,
            lambda: world.network.freeze(stores),
            lambda: world.network.thaw(stores),
            state=f"{server} frozen",
        )

    return begin


def _flag(kind: str, name: str, flag: str, *, value: bool) -> Begin:
    """Return what sets a flag of a server for a time."""

    def begin(world: "World", _fault: Fault, _process: Process) -> End | None:
        server = world.server_name(name)

        def put() -> None:
            setattr(world.server(server), flag, value)

        def take_back() -> None:
            setattr(world.server(server), flag, not value)

        return world.lasting(kind, server, put, take_back)

    return begin


def _record_locked(world: "World", _fault: Fault, _process: Process) -> End | None:
    """Let somebody lock the table of orders: nothing is inserted, and all else goes on."""

    def lock() -> None:
        world.orders_are_locked = True

    def unlock() -> None:
        world.orders_are_locked = False

    return world.lasting("record locked", "record", lock, unlock)


def _queue_refuses(world: "World", fault: Fault, process: Process) -> End | None:
    flag, value = ("takes_messages", False) if world.broker else ("refuses_writes", True)
    return _flag("queue refuses", "queue", flag, value=value)(world, fault, process)


def _miscounts(world: "World", fault: Fault, _process: Process) -> End | None:
    broker = world.broker
    assert broker is not None
    return world.lasting(
        "queue miscounts",
        "queue",
        broker.lose_quorum,
        lambda: broker.regain_quorum(keeps_undecided=fault.amount % 2 == 0),
    )


# --- stores that lose something --------------------------------------------------------------


def _cache_emptied(world: "World", _fault: Fault, _process: Process) -> End | None:
    if world.lacks_rows:
        return None
    world.excuse_cache(list(world.valkey_now.dirty))
    world.valkey_now.wipe()
    return None


def _cache_restarted(world: "World", fault: Fault, _process: Process) -> End | None:
    """Restart it; as by a power cut, if it is a server of its own."""
    name = world.server_name("cache")
    if world.depth(f"{name} away") or world.lacks_rows:
        return None
    valkey = world.valkey_now
    lost = valkey.lost_by_power_cut() if name == "cache" else 0
    if fault.amount % 2:
        lost = lost * fault.amount // 1_000  # what was not synced may be there all the same
    before = set(valkey.dirty)

    def stop() -> None:
        world.server(name).stop()

    def start() -> None:
        valkey.start(lost_effects=lost)
        world.excuse_cache([i for i in sorted(before) if i not in valkey.entries])

    if fault.seconds < 0.5:  # so fast that nobody sees it away
        stop()
        start()
        return None
    return world.lasting("cache restarted", name, stop, start, state=f"{name} away")


def _cache_failover(world: "World", fault: Fault, _process: Process) -> End | None:
    """Promote the replica, with what has reached it; the old primary comes back as its replica.

    Until it has come back it has what it had. So have its readers, but for the processes whose
    connections were cut: all, none, or one API process alone.
    """
    old, new = world.valkey_now, world.replica
    if new is None or world.depth("cache away") or world.lacks_rows:
        return None
    if not (old.had_replicas or old.replicas_seen):
        return None  # nothing remembers it: docs/architecture.md, "What is not covered"
    lost = [i for i in old.dirty if i not in new.entries]
    if world.queue_lost:
        world.excuse_cache(lost)
    new.fsync, new.policy = old.fsync, old.policy
    new.is_full, new.refuses_writes = old.is_full, old.refuses_writes
    new.promote()
    world.address.server = new
    if fault.amount % 4 == 0:
        old.cut_connections()
    else:
        world.stale_until = world.loop.now + STALE_SECONDS
    if fault.amount % 4 in (1, 2):
        world.cut_from_cache(world.apis[fault.amount % len(world.apis)])
    old.demote(new)
    world.replica = old

    def comes_back() -> None:
        old.link_is_up = True

    return comes_back


def _cache_settings(world: "World", fault: Fault, _process: Process) -> End | None:
    """Change what `CONFIG SET` can change; evict something where the policy permits it."""
    if fault.amount % 2:

        def lazily() -> None:
            world.valkey_now.fsync = "everysec"

        def again() -> None:
            world.valkey_now.fsync = "always" if world.plan.durable else "everysec"

        return world.lasting("cache settings", "cache", lazily, again)

    def evict() -> None:
        if world.lacks_rows:
            return
        valkey = world.valkey_now
        valkey.policy = "allkeys-lru"
        evictable = valkey.evictable()
        chosen = evictable[:: 1 + fault.amount % 3]
        world.excuse_cache([i for i in chosen if i in valkey.dirty])
        for order_id in chosen:
            valkey.evict(order_id)

    def protect() -> None:
        world.valkey_now.policy = "volatile-ttl"

    return world.lasting("cache eviction", "cache", evict, protect)


def _queue_emptied(world: "World", _fault: Fault, _process: Process) -> End | None:
    assert world.broker is not None
    world.excuse_queue()
    world.queue_lost = True
    world.broker.delete_queue()
    return None


LOST_EFFECTS_MAX = 12


def _record_failover(world: "World", fault: Fault, _process: Process) -> End | None:
    """Fail over to a standby that lacks the latest commits, epochs and orders alike."""
    world.fail_over_record(fault.amount % (LOST_EFFECTS_MAX + 1))
    return None


def _record_restarted(world: "World", fault: Fault, _process: Process) -> End | None:
    if world.depth("record away"):
        return None
    if fault.seconds < 0.5:
        world.record.stop()
        world.record.start()
        return None
    return _away("record")(world, fault, _process)


def _search_emptied(world: "World", fault: Fault, _process: Process) -> End | None:
    if world.depth("search away"):
        return None
    if fault.amount % 3 == 0:
        world.engine.stop()
        world.engine.start(lost_changes=1 + fault.amount % 4)
    else:
        world.engine.wipe()
    return None


# --- versions --------------------------------------------------------------------------------


def _newer_entry(world: "World", fault: Fault, _process: Process) -> End | None:
    """Let a newer version store a dirty entry in a state that this one does not know."""
    order_id = UUID(int=(0x7000 << 64) | fault.amount | (fault.amount << 80))
    now = world.server_clock.now() - timedelta(seconds=fault.seconds)
    body = json.dumps({"id": str(order_id), "what": "of a newer version"}).encode()
    raw = b"N%d %s\n%s" % (to_micros(now), str(order_id).encode(), body)
    valkey = world.valkey_now
    if not valkey.is_up or valkey.entry(order_id) is not None:
        return None
    with valkey.journal.effect():
        valkey.entries.put(order_id, Value(raw, None))
        valkey.dirty.put(order_id, to_micros(now))
    world.left_by_others.append(order_id)
    return None


def _newer_message(world: "World", fault: Fault, _process: Process) -> End | None:
    """Let a newer version publish a message; a newer worker will come at last."""
    message: Any = Message(
        b'{"version": 2, "orders": [%d]}' % fault.amount,
        1 + fault.amount % 3,
        world.server_clock.now(),
        NEWER_SCHEMA,
    )
    world.publish_strange(message)
    return None


BEGIN: dict[str, Begin] = {
    "paused": _pause,
    "suspended": _suspend,
    "killed": _kill,
    "stopped": _stop,
    "clock": _clock,
    "cache away": _away("cache"),
    "cache frozen": _frozen("cache"),
    "cache full": _flag("cache full", "cache", "is_full", value=True),
    "cache emptied": _cache_emptied,
    "cache restarted": _cache_restarted,
    "cache failover": _cache_failover,
    "cache settings": _cache_settings,
    "queue away": _away("queue"),
    "queue frozen": _frozen("queue"),
    "queue miscounts": _miscounts,
    "queue refuses": _queue_refuses,
    "queue emptied": _queue_emptied,
    "record away": _away("record"),
    "record frozen": _frozen("record"),
    "record locked": _record_locked,
    "record read-only": _flag("record read-only", "record", "is_read_only", value=True),
    "record failover": _record_failover,
    "record restarted": _record_restarted,
    "search away": _away("search"),
    "search frozen": _frozen("search"),
    "search emptied": _search_emptied,
    "newer entry": _newer_entry,
    "newer message": _newer_message,
}
