"""What happens to a store of several nodes: its leader is lost, stands still, or is exchanged.

Each fault ends with all nodes serving or following again, and with writes that get two copies.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.fault.faults import Fault, Scene
from tests.fault.topologies import PostgresHa, RabbitMQ3, RedisHa, Topology

ACKED = 300
"""Orders between two steps."""


async def led_by_another(topology: Topology, scene: Scene, former: str) -> None:
    """Return once another node leads, and writes get two copies."""
    await topology.promote(former)
    await scene.more_acked(ACKED)
    await scene.whole_again()


@asynccontextmanager
async def lost(topology: Topology, scene: Scene) -> AsyncIterator[str]:
    """Have orders accepted by the nodes that are left; the lost one follows in the end."""
    leader = await topology.leader()
    yield leader
    await led_by_another(topology, scene, leader)
    await topology.rejoin(leader)
    await scene.more_acked(ACKED)


async def kill_leader(topology: Topology, scene: Scene) -> None:
    """The leader is killed."""
    await scene.a_while(0, 0.5)
    async with lost(topology, scene) as leader:
        await topology.nodes[leader].kill()


async def kill_twice(topology: Topology, scene: Scene) -> None:
    """The leader is killed, and, once it follows, so is the next one."""
    for _ in range(2):
        await kill_leader(topology, scene)


async def freeze_leader(topology: Topology, scene: Scene) -> None:
    """The leader stands still until another leads, and then goes on as if nothing had been."""
    leader = await topology.leader()
    node = topology.nodes[leader]
    await node.send(signal.SIGSTOP)
    try:
        await led_by_another(topology, scene, leader)
    finally:
        await node.send(signal.SIGCONT)
    await scene.a_while(1, 4)  # there may be two leaders
    await topology.rejoin(leader)
    await scene.whole_again()
    await scene.more_acked(ACKED)


async def kill_first(topology: Topology, scene: Scene) -> None:
    """The node whose address comes first is killed, and stays away for a while."""
    first, led = topology.first, topology.first == await topology.leader()
    await topology.nodes[first].kill()
    if led:
        await topology.promote(first)
    await scene.more_acked(ACKED)
    await scene.whole_again()
    await scene.system.restart_members(every={})  # they connect anew, past the first
    await scene.more_acked(ACKED)
    await topology.rejoin(first)


async def stop_leader(topology: Topology, scene: Scene) -> None:
    """The leader is stopped in order, as for maintenance, and started again."""
    async with lost(topology, scene) as leader:
        await topology.stop(leader)


async def isolate_leader(topology: RedisHa | RabbitMQ3, scene: Scene) -> None:
    """The leader is cut off from the other nodes, while the product reaches it."""
    leader = await topology.leader()
    await topology.isolate(leader)
    try:
        await led_by_another(topology, scene, leader)
    finally:
        await topology.rejoin(leader)
    await scene.whole_again()
    await scene.more_acked(ACKED)


# --- the cache ---------------------------------------------------------------------------------


async def kill_cut_off(topology: RedisHa | PostgresHa, scene: Scene) -> None:
    """The primary is killed after its replica had received nothing more for a while."""
    await topology.cut_off()
    await scene.more_acked(ACKED)
    await kill_leader(topology, scene)


async def kill_cut_off_alone(topology: RedisHa, scene: Scene) -> None:
    """The same while the queue is away: only what a replica has too may be acknowledged."""
    queue = scene.system.stores["queue"]
    await queue.kill()
    try:
        await scene.more_acked(ACKED)
        await topology.cut_off()
        await scene.a_while(2, 4)
        leader = await topology.leader()
        await topology.nodes[leader].kill()
        await topology.promote(leader)
        await topology.rejoin(leader)
        await scene.more_acked(ACKED)
    finally:
        await queue.up()
    await scene.whole_again()


async def switch_over(topology: RedisHa, scene: Scene) -> None:
    """The Sentinels exchange primary and replica, and both go on."""
    leader = await topology.leader()
    await topology.switch_over(leader)
    await topology.whole()
    await scene.whole_again()
    await scene.more_acked(ACKED)


# --- the record --------------------------------------------------------------------------------


async def kill_synchronous(topology: PostgresHa, scene: Scene) -> None:
    """The primary is killed after each commit had waited for its standby: that lacks nothing."""
    await topology.wait_for_standby()
    await scene.more_acked(ACKED)
    async with lost(topology, scene) as leader:
        persisted = await topology.persisted(leader)
        await topology.nodes[leader].kill()
        assert await topology.persisted(topology.other(leader)) >= persisted


async def two_primaries(topology: PostgresHa, scene: Scene) -> None:
    """The standby is promoted while its primary goes on: nobody has fenced that."""
    leader = await topology.leader()
    await led_by_another(topology, scene, leader)
    await topology.rejoin(leader)
    await scene.more_acked(ACKED)


# --- the queue ---------------------------------------------------------------------------------


async def lose_majority(topology: RabbitMQ3, scene: Scene) -> None:
    """Two of three nodes are killed: nothing can be confirmed until they are back."""
    away = scene.random.sample(list(topology.members), 2)
    await asyncio.gather(*(topology.nodes[node].kill() for node in away))
    await scene.more_acked(ACKED)
    await scene.a_while(1, 4)
    await topology.cluster.up(*(node[-1] for node in away))
    await topology.whole()
    await scene.whole_again()


async def one_member(topology: RabbitMQ3, scene: Scene) -> None:
    """The queue was declared while one node was up; it grows as docs/ops.md says."""
    leader = await topology.leader()
    others = [node for node in topology.members if node != leader]
    for node in others:
        await topology.shrink(node)
    await scene.more_acked(ACKED)
    for node in others:
        await topology.grow(node)
    await topology.whole()
    await kill_leader(topology, scene)


def of_topology(topology: Topology) -> list[Fault]:
    """Return what can happen to a topology."""
    faults = [
        Fault("kill leader", partial(kill_leader, topology)),
        Fault("kill twice", partial(kill_twice, topology), slow=True),
        Fault("freeze leader", partial(freeze_leader, topology)),
        Fault("kill first", partial(kill_first, topology)),
        Fault("stop leader", partial(stop_leader, topology)),
    ]
    if isinstance(topology, RedisHa | RabbitMQ3):
        faults.append(Fault("isolate leader", partial(isolate_leader, topology)))
    if isinstance(topology, RedisHa):
        faults += [
            Fault("kill cut off", partial(kill_cut_off, topology)),
            Fault("kill cut off alone", partial(kill_cut_off_alone, topology), survivable=False),
            Fault("switch over", partial(switch_over, topology)),
        ]
    if isinstance(topology, PostgresHa):
        faults += [
            Fault("kill cut off", partial(kill_cut_off, topology)),
            Fault("kill synchronous", partial(kill_synchronous, topology)),
            Fault("two primaries", partial(two_primaries, topology)),
        ]
    if isinstance(topology, RabbitMQ3):
        faults += [
            Fault("lose majority", partial(lose_majority, topology)),
            Fault("one member", partial(one_member, topology)),
        ]
    return faults
