"""One store on several nodes under fault, the other three on one each."""

from collections.abc import Mapping
from pathlib import Path

from tests.fault.servers_system import ServersSystem
from tests.fault.topologies import LOGIN, PostgresHa, RedisHa, Topology
from tests.support.patience import NOT_WELL, patiently
from tests.support.servers import redis_value

COMPARED = "polyglot:compared"


class HaSystem(ServersSystem):
    """API and two workers over a topology, which was started, and three single servers."""

    settle_seconds = 240.0
    disk_roles = ()

    def __init__(self, directory: Path, addresses: Mapping[str, str], topology: Topology) -> None:
        super().__init__(directory, {**addresses, **topology.settings})
        self.deployment = topology.group
        self.topology = topology
        del self.stores[topology.role]

    async def cache_url(self) -> str:
        if isinstance(self.topology, RedisHa):
            return self.topology.url(await patiently(self.topology.leader), LOGIN)
        return await super().cache_url()

    async def unsettled(self) -> str:
        left = await super().unsettled()
        if left or not isinstance(self.topology, PostgresHa):
            return left
        try:
            compared = await redis_value(await self.cache_url(), "GET", COMPARED)
            timeline = await self.topology.timeline()
        except NOT_WELL as error:
            return repr(error)
        branch = str(compared or b"", "ascii").partition(" ")[0]
        return "" if branch.endswith(timeline) else "the record is not healed"

    def dsn(self) -> str:
        dsn = super().dsn()
        return f"{dsn}{'&' if '?' in dsn else '?'}target_session_attrs=primary"
