"""What can happen to the system, and how each of it is made to happen.

A fault begins when it is called and is over when it returns; what it broke it has mended by then,
as far as an operator would have to. The system has to do the rest.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple

from tests.fault import contents
from tests.fault.disks import copies_of
from tests.fault.history import History
from tests.fault.members import Member
from tests.fault.network import Link
from tests.fault.servers_system import ServersSystem
from tests.fault.systems import System
from tests.support.eventually import look_again
from tests.support.patience import patiently
from tests.support.processes import alive, eventually
from tests.support.real_servers import servers
from tests.support.servers import redis_done

API_CALLS = ("cache.accept", "queue.publish", "cache.read", "record.find", "cache.backfill")
WORKER_CALLS = (
    "consumer.receive",
    "record.persist",
    "cache.settle",
    "consumer.ack",
    "search.index",
    "record.outbox_done",
    "record.claim_outbox",
    "cache.backlog",
    "cache.dirty_before",
    "sales.refresh",
)
POINTS_A_ROUND = 4
"""Fewer deaths of workers in a row than condemn an order (`suspects`)."""
HIT_SECONDS = 6.0
"""A point that is not reached by then is left for another round."""
PROGRESS_SECONDS = 60.0


@dataclass
class Scene:
    """Where a fault happens."""

    system: System
    history: History
    random: Random

    async def more_acked(self, orders: int) -> None:
        """Return once so many more are acknowledged."""
        before = len(self.history.ids)
        enough, moved_at = before + orders, time.monotonic()
        while (now := len(self.history.ids)) < enough:
            if now > before:
                before, moved_at = now, time.monotonic()
            if time.monotonic() - moved_at > PROGRESS_SECONDS:
                raise StuckError(f"not one order accepted in {PROGRESS_SECONDS} s")
            await look_again()

    async def whole_again(self) -> None:
        """Return once a write is acknowledged with both copies."""
        began = time.monotonic()
        while self.history.whole_at < began:
            if time.monotonic() - began > PROGRESS_SECONDS:
                raise StuckError(f"no write with two copies in {PROGRESS_SECONDS} s")
            await look_again()

    async def a_while(self, low: float, high: float) -> None:
        """Let some time pass: that is the fault here, not something to wait for."""
        await asyncio.sleep(self.random.uniform(low, high))


class StuckError(Exception):
    """The system does not go on."""


class Fault(NamedTuple):
    """One kind of fault."""

    name: str
    happen: Callable[[Scene], Awaitable[None]]
    survivable: bool = True
    """Whether orders must be accepted while it lasts."""
    slow: bool = False
    """Whether it takes minutes where much else is done: servers are moved, or start twice."""


# --- processes of the project ------------------------------------------------------------------


async def crash_at_points(role: str, scene: Scene) -> None:
    """Processes die at chosen points, one after the other."""
    chosen = scene.random.sample(_points(role), POINTS_A_ROUND)
    # Of two workers, the other one is killed and armed too: it would do the work alone.
    members = [one for one in scene.system.members if one.role == role]
    for point in chosen:
        deaths = sum(len(member.died_at) for member in members)
        for member in members:
            member.armed.append(f"{point}:{scene.random.randint(1, 12)}")
            member.kill()
        deadline = time.monotonic() + HIT_SECONDS
        while sum(len(member.died_at) for member in members) < deaths + 1:
            if time.monotonic() > deadline:
                break
            await look_again()
    for member in members:
        member.kill()  # one that was not reached is not to die later


def _points(role: str) -> list[str]:
    calls = API_CALLS if role == "api" else WORKER_CALLS
    return [f"{call}:{when}" for call in calls for when in ("before", "after")]


async def kill_member(role: str, scene: Scene) -> None:
    """Processes die at any moment."""
    members = [one for one in scene.system.members if one.role == role]
    for _ in range(3):
        await scene.a_while(0.2, 1.2)
        scene.random.choice(members).kill()
        await scene.more_acked(60)


async def stop_members(scene: Scene) -> None:
    """Processes are told to stop, under load, and started again; each must end in order."""
    for member in scene.random.sample(list(scene.system.members), 2):
        codes = len(member.ended_with)
        await member.tell_to_stop()
        await eventually(lambda m=member, n=codes: len(m.ended_with) > n, PROGRESS_SECONDS)  # type: ignore[misc]
        await scene.more_acked(60)
        if code := member.ended_with[-1]:
            scene.history.fail(f"{member.role} ended with {code} on SIGTERM")


async def flaky(scene: Scene) -> None:
    """Calls to stores fail, are slow, or have an effect that nobody hears of."""
    share = scene.random.choice(("0.02", "0.05", "0.15"))
    seed = scene.random.randrange(1 << 30)
    await scene.system.restart_members(every={"FAULT_FLAKY": f"{share}:{seed}"})
    await scene.more_acked(600)
    await scene.a_while(2, 5)
    await scene.system.restart_members(every={})


async def freeze_worker(scene: Scene) -> None:
    """A worker stands still for longer than it may hold a delivery, and then goes on."""
    for worker in scene.system.workers[: scene.random.randint(1, 2)]:
        await _frozen(worker, scene)


async def _frozen(member: Member, scene: Scene) -> None:
    member.send(signal.SIGSTOP)
    await scene.a_while(5, 9)
    member.send(signal.SIGCONT)
    await scene.more_acked(100)


async def jump_clock(scene: Scene) -> None:
    """The clocks of all processes are wrong, forwards, backwards, over midnight."""
    for seconds in scene.random.sample((3_600, -3_600, 86_400, -86_400, 59, -7), 3):
        _set_clocks(scene, seconds)
        await scene.more_acked(200)
        await scene.a_while(0.5, 1.5)
    _set_clocks(scene, 0)


def _set_clocks(scene: Scene, seconds: float) -> None:
    new = scene.system.clock_path.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(scene.system.clock_path)  # in one step: they are read all the time


# --- servers -----------------------------------------------------------------------------------


async def kill_store(role: str, scene: Scene) -> None:
    """A server is killed, stays away for a while, and comes back with its data."""
    store = scene.system.stores[role]
    await scene.a_while(0, 0.5)
    await store.kill()
    await scene.a_while(0.2, 4)
    await store.up()


async def kill_store_at_points(role: str, scene: Scene) -> None:
    """A server is killed right before or after somebody calls a store, and comes back soon."""
    store = scene.system.stores[role]
    for whose in ("api", "worker"):
        members = [one for one in scene.system.members if one.role == whose]
        point = f"{scene.random.choice(_points(whose))}:{scene.random.randint(1, 12)}"
        victims = await store.pids()
        for member in members:
            member.victims = victims
            member.armed.append(point)
            member.kill()
        with contextlib.suppress(AssertionError):  # it was not reached
            await eventually(lambda v=victims: not any(map(alive, v)), HIT_SECONDS)  # type: ignore[misc]
            members[0].died_at.append(point)
        await scene.a_while(0.2, 2)
        for member in members:
            member.victims = ()
            member.kill()  # one that was not reached is not to kill later
        await store.up()


async def freeze_store(role: str, scene: Scene) -> None:
    """A server stands still, with all its connections open."""
    store = scene.system.stores[role]
    await store.send(signal.SIGSTOP)
    await scene.a_while(3, 8)
    await store.send(signal.SIGCONT)


async def kill_backend(scene: Scene) -> None:
    """One process of PostgreSQL is killed; the server restarts all of them.

    The next one is killed once that is done: PostgreSQL 18.6 whose recovery is killed after such a
    restart neither goes on nor ends.
    """
    store = scene.system.stores["record"]
    for _ in range(2):
        await patiently(partial(contents.unfinished, scene.system.dsn()))
        pids = await store.pids()
        if len(pids) > 1:
            victim = scene.random.choice(pids[1:])
            await asyncio.to_thread(_kill, victim)
        await scene.more_acked(150)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def bad_network(role: str, scene: Scene) -> None:
    """Replies of a store are lost or late, its connections are cut, or nothing comes through."""
    system = scene.system
    link = Link(await system.target(role), str(scene.random.random()))
    await link.start()
    try:
        system.links[role] = link
        await system.restart_members(every={})
        link.lost_share, link.slow_share = 0.02, 0.05
        await scene.a_while(2, 4)
        link.lost_share = 0.3
        await scene.a_while(0.5, 2)
        link.lost_share = 0.0
        await link.cut()
        await scene.a_while(0.2, 1.5)
        link.restore()
        await scene.a_while(0.5, 1)
        link.stall()
        await scene.a_while(1, 4)
        link.resume()
        link.slow_share = 0.0
        await scene.a_while(0.5, 1)
    finally:
        del system.links[role]
        await system.restart_members(every={})
        await link.stop()


# --- data --------------------------------------------------------------------------------------


@asynccontextmanager
async def workers_behind(scene: Scene) -> AsyncIterator[None]:
    """Have orders accepted that no worker has seen; in the end the workers go on, or die.

    Without that there would be next to nothing to lose: a worker is done within milliseconds.
    """
    workers = scene.system.workers
    for worker in workers:
        worker.send(signal.SIGSTOP)
    await scene.more_acked(200)
    yield
    await scene.a_while(0.2, 1.5)
    for worker in workers:
        if scene.random.random() < 0.5:
            worker.send(signal.SIGCONT)
        else:
            worker.kill()


async def lose_entries(scene: Scene) -> None:
    """All that the cache has vanishes in one step, while the server runs; a queue there stays."""
    script = (
        "local keys = redis.call('KEYS', 'polyglot:*') "
        "for start = 1, #keys, 1000 do"
        " redis.call('DEL', unpack(keys, start, math.min(start + 999, #keys))) end return #keys"
    )
    for _ in range(2):
        async with workers_behind(scene):
            await redis_done(await scene.system.cache_url(), "EVAL", script, "0")
        await scene.more_acked(200)
        await scene.a_while(0.2, 2)


async def lose_stream(scene: Scene) -> None:
    """The queue's stream is deleted while the server runs."""
    for _ in range(2):
        async with workers_behind(scene):
            await redis_done(await scene.system.cache_url(), "DEL", "order_queue")
        await scene.more_acked(200)


async def lose_index(scene: Scene) -> None:
    """The search index is deleted while everything runs."""
    await scene.system.delete_index()
    await scene.more_acked(300)


async def wipe_store(role: str, scene: Scene) -> None:
    """A server loses its data: it ends, and starts empty."""
    store = scene.system.stores[role]
    async with workers_behind(scene):
        await store.kill()
    await store.empty()
    await scene.a_while(0, 2)
    await store.up()


async def flush(scene: Scene) -> None:
    """The cache is emptied by a command."""
    for _ in range(2):
        async with workers_behind(scene):
            await redis_done(await scene.system.cache_url(), "FLUSHALL")
        await scene.more_acked(200)


async def lose_queue(system: ServersSystem, scene: Scene) -> None:
    """The queue is deleted while everything runs."""
    for _ in range(2):
        async with workers_behind(scene):
            await system.delete_queue()
        await scene.more_acked(200)


async def alarm(scene: Scene) -> None:
    """The broker has no memory left and takes nothing in."""
    tool = ("rabbitmqctl", "set_vm_memory_high_watermark", "absolute")
    await _run_on_broker(*tool, "1MB")
    await scene.a_while(2, 6)
    await _run_on_broker(*tool, "1GB")


async def _run_on_broker(*tool: str) -> None:
    # The tool has a deadline of its own, which a busy broker may exceed.
    await patiently(partial(asyncio.to_thread, servers, "run", "rabbitmq", *tool))


async def little_memory(scene: Scene) -> None:
    """The cache has reached its memory limit for a while."""
    url = await scene.system.cache_url()
    _, before = await redis_done(url, "CONFIG", "GET", "maxmemory")
    await redis_done(url, "CONFIG", "SET", "maxmemory", "1mb")
    await scene.a_while(2, 5)
    await redis_done(url, "CONFIG", "SET", "maxmemory", before.decode())
    await scene.more_acked(100)


async def no_space(role: str, scene: Scene) -> None:
    """A store's disk is full for a while; the server may die of it and is started again."""
    async with scene.system.on_small_disks(role) as disks:
        with disks[role].full():
            await scene.a_while(3, 6)
        if role in scene.system.stores:
            await scene.system.stores[role].up()
    await scene.system.mend(role)


async def lose_power(scene: Scene) -> None:
    """The power fails: all processes end at one moment, and what nobody has synced is gone."""
    system = scene.system
    async with system.on_small_disks(*system.disk_roles) as disks:
        await scene.more_acked(300)
        await system.freeze()
        copies = await asyncio.to_thread(copies_of, list(disks.values()))
        await system.die()
        for disk, copy in zip(disks.values(), copies, strict=True):
            await asyncio.to_thread(disk.replace, copy)
        await system.start()


def of_both() -> list[Fault]:
    """Return what can happen to either deployment."""
    roles = ("api", "worker")
    return [
        *(Fault(f"crash points {role}", partial(crash_at_points, role)) for role in roles),
        *(Fault(f"kill {role}", partial(kill_member, role)) for role in roles),
        Fault("stop processes", stop_members),
        Fault("flaky calls", flaky),
        Fault("freeze worker", freeze_worker),
        Fault("clock jumps", jump_clock),
        Fault("kill backend", kill_backend),
        Fault("kill record", partial(kill_store, "record")),
        Fault("kill record at points", partial(kill_store_at_points, "record")),
        Fault("freeze record", partial(freeze_store, "record")),
        Fault("network record", partial(bad_network, "record")),
        Fault("lose index", lose_index),
        Fault("lose entries", lose_entries),
    ]


def of_disks(system: System) -> list[Fault]:
    """Return what can happen to the disks, where there can be any to try it on."""
    if not system.has_small_disks:
        return []
    survivable = {role for role in system.disk_roles if role != "cache" or "queue" in system.stores}
    return [
        Fault("power loss", lose_power, survivable=False),
        *(
            Fault(f"no space {role}", partial(no_space, role), role in survivable)
            for role in system.disk_roles
        ),
    ]


def of_servers(system: ServersSystem) -> list[Fault]:
    """Return what can happen to the deployment on four servers."""
    faults = [*of_both(), *(fault._replace(slow=True) for fault in of_disks(system))]
    for role in ("cache", "queue", "search"):
        faults += [
            Fault(f"kill {role}", partial(kill_store, role)),
            Fault(
                f"kill {role} at points",
                partial(kill_store_at_points, role),
                slow=role == "search",
            ),
            Fault(f"freeze {role}", partial(freeze_store, role)),
            Fault(f"network {role}", partial(bad_network, role)),
            Fault(f"wipe {role}", partial(wipe_store, role)),
        ]
    return [
        *faults,
        Fault("flush", flush),
        Fault("lose queue", partial(lose_queue, system)),
        Fault("alarm", alarm),
        Fault("little memory", little_memory),
    ]


def of_embedded(system: System) -> list[Fault]:
    """Return what can happen to the embedded deployment, whose cache is its queue as well."""
    return [
        *of_both(),
        *of_disks(system),
        *(Fault("crash points worker", partial(crash_at_points, "worker")) for _ in range(2)),
        Fault("crash points api", partial(crash_at_points, "api")),
        Fault("kill cache", partial(kill_store, "cache"), survivable=False),
        Fault("kill cache at points", partial(kill_store_at_points, "cache"), survivable=False),
        Fault("freeze cache", partial(freeze_store, "cache"), survivable=False),
        Fault("network cache", partial(bad_network, "cache"), survivable=False),
        Fault("lose stream", lose_stream),
        Fault("little memory", little_memory, survivable=False),
    ]
