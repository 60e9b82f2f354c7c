"""All queues of the contract suite: the real ones, and the simulated ones with the same face."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.embedded.valkey import EmbeddedValkey
from polyglot_persistence.ports.queue import Queue
from tests.simulation.stores.broker import Broker, SimulatedRabbitMQ
from tests.simulation.stores.streams import SimulatedStreams
from tests.simulation.stores.valkey import ValkeyAddress, ValkeyServer
from tests.support.addresses import address_of
from tests.support.eventually import eventually
from tests.support.queues import (
    REAL,
    QueueServer,
    RabbitMQ,
    StallingServer,
    ValkeyStreams,
    closing,
)
from tests.support.servers import flush, running, short_directory


class StreamsFake(QueueServer):
    """Streams in a simulated Valkey."""

    death_seconds = 2.0
    hold_seconds = 0.7

    def __init__(self) -> None:
        self.server = ValkeyServer(SystemClock())
        self._address = ValkeyAddress(self.server)
        self._processes: list[SimulatedStreams] = []

    async def process(self) -> Queue:
        name = str(len(self._processes))
        queue = SimulatedStreams(self._address, name, claim_idle_seconds=self.hold_seconds)
        self._processes.append(queue)
        return queue

    async def kill(self, queue: Queue) -> None:
        next(one for one in self._processes if one is queue).kill()

    def stand_still(self, queue: Queue) -> None:
        """A process that is asked nothing sends nothing."""

    async def stop(self) -> None:
        self.server.stop()

    async def start(self) -> None:
        self.server.start()

    async def wipe(self) -> None:
        self.server.wipe()

    async def is_waited_on(self) -> None:
        async def waits() -> None:
            assert self.server.on_change

        await eventually(waits)

    async def close(self) -> None:
        """Nothing is open."""


class BrokerFake(QueueServer):
    """A simulated RabbitMQ."""

    death_seconds = 2.0
    hold_seconds = 0.0

    def __init__(self) -> None:
        self.broker = Broker(SystemClock(), silence_seconds=0.5)
        self._processes: list[SimulatedRabbitMQ] = []

    async def process(self) -> Queue:
        queue = SimulatedRabbitMQ(self.broker)
        self._processes.append(queue)
        return queue

    async def kill(self, queue: Queue) -> None:
        next(one for one in self._processes if one is queue).kill()

    def stand_still(self, queue: Queue) -> None:
        next(one for one in self._processes if one is queue).stand_still()

    async def stop(self) -> None:
        self.broker.stop()

    async def start(self) -> None:
        self.broker.start()

    async def wipe(self) -> None:
        self.broker.delete_queue()

    async def is_waited_on(self) -> None:
        await asyncio.sleep(0)  # messages are pushed: it only waits for the next one

    async def close(self) -> None:
        """Nothing is open."""


_FAKES: Mapping[str, Callable[[], QueueServer]] = {
    "simulated_streams": StreamsFake,
    "simulated_rabbitmq": BrokerFake,
}
ADAPTERS = [*REAL, *_FAKES]


@asynccontextmanager
async def serving(adapter: str, valkey: EmbeddedValkey) -> AsyncIterator[QueueServer]:
    """Yield an empty queue server, which other tests may use too."""
    if adapter in _FAKES:
        yield _FAKES[adapter]()
    elif adapter != "valkey_streams":
        async with closing(RabbitMQ(address_of(adapter))) as server:
            yield server
    else:
        await flush(valkey.url)
        async with closing(ValkeyStreams(valkey)) as server:
            yield server


@asynccontextmanager
async def serving_alone(adapter: str) -> AsyncIterator[QueueServer]:
    """Yield a queue server that the test may take away."""
    if adapter in _FAKES:
        yield _FAKES[adapter]()
    else:
        async with stalling(adapter) as server:
            yield server


@asynccontextmanager
async def stalling(adapter: str) -> AsyncIterator[StallingServer]:
    """Yield a real queue server that the test may take away and stall."""
    if adapter != "valkey_streams":
        async with closing(RabbitMQ(address_of(adapter))) as server:
            yield server
    else:
        with short_directory() as directory:
            async with (
                running(EmbeddedValkey(directory / "valkey")) as valkey,
                closing(ValkeyStreams(valkey)) as streams,
            ):
                yield streams
