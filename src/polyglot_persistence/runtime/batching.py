"""Batching without a timer: a batch is everything that arrived while the last one was in flight.

Under light load an item leaves at once, alone; under heavy load batches grow by themselves, so
that one round trip and one fsync serve many callers (group commit).

Invariant: an added item reaches `process` exactly once, also when its caller is canceled.
Invariant: the backlog is bounded; above the bound `add` refuses and takes nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Generic, TypeVar

from polyglot_persistence.errors import PolyglotError, refused

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass
class Batcher(Generic[Item]):
    """Hands items to `process` in batches; `process` settles its callers and never raises.

    Create it, and anything built on it, inside the event loop that uses it.
    """

    process: Callable[[Sequence[Item]], Awaitable[None]]
    _: KW_ONLY
    batch_max: int
    waiting_max: int
    in_flight_max: int
    waiting: int = field(default=0, init=False)
    """The weight of the waiting items."""
    _items: deque[tuple[Item, int]] = field(default_factory=deque, init=False)
    _in_flight: dict[asyncio.Task[None], int] = field(default_factory=dict, init=False)
    _start_scheduled: bool = field(default=False, init=False)
    # Stored, because getting it for each item costs a system call before Python 3.12.
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop, init=False)

    def add(self, item: Item, weight: int = 1) -> None:
        """Take an item into the next batch.

        Raises:
            UnavailableError: too much is waiting; the item was not taken.
        """
        if self.waiting + weight > self.waiting_max:
            raise refused("too many requests are waiting")
        self._items.append((item, weight))
        self.waiting += weight
        if not self._start_scheduled and self._may_start():
            # Not at once: items that arrive in the same turn of the event loop join the batch.
            self._start_scheduled = True
            self._loop.call_soon(self._start)

    async def drain(self) -> None:
        """Return once every added item has been processed."""
        while self._in_flight or self._items:
            if self._in_flight:
                await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)

    def _may_start(self) -> bool:
        if not self._in_flight:
            return True
        if len(self._in_flight) == self.in_flight_max:
            return False
        return self.waiting >= min(max(self._in_flight.values()), self.batch_max)

    def _start(self) -> None:
        self._start_scheduled = False
        while self._items and self._may_start():
            batch: list[Item] = []
            weight = 0
            while self._items and (not batch or weight + self._items[0][1] <= self.batch_max):
                item, item_weight = self._items.popleft()
                batch.append(item)
                weight += item_weight
            self.waiting -= weight
            task = asyncio.ensure_future(self.process(batch), loop=self._loop)
            self._in_flight[task] = weight
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler(
                {"message": "a batch's process raised", "exception": error, "task": task}
            )
        if self._items:
            self._start()


class Coalescer(Generic[Key, Value]):
    """Turns concurrent look-ups into batches; callers of one key share one look-up.

    The value of a key that `fetch` does not return is `None`; nothing is remembered.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]],
        *,
        batch_max: int,
        waiting_max: int,
        in_flight_max: int = 2,
    ) -> None:
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._shared: dict[Key, asyncio.Future[Value | None]] = {}
        self._batcher: Batcher[Key] = Batcher(
            self._process,
            batch_max=batch_max,
            waiting_max=waiting_max,
            in_flight_max=in_flight_max,
        )

    def get(self, key: Key) -> asyncio.Future[Value | None]:
        """Return the future of a look-up that begins now or later, never one already running.

        So an answer is never older than the call. The future is shared: shield it before awaiting
        it in a task that can be canceled.

        Raises:
            UnavailableError: too many look-ups are waiting (at once), or the look-up failed.
        """
        future = self._shared.get(key)
        if future is None:
            self._batcher.add(key)
            future = self._loop.create_future()
            self._shared[key] = future
        return future

    async def drain(self) -> None:
        """Return once every look-up has been answered."""
        await self._batcher.drain()

    async def _process(self, keys: Sequence[Key]) -> None:
        # From here on a new caller starts a look-up of its own.
        futures = [self._shared.pop(key) for key in keys]
        try:
            values = await self._fetch(keys)
        except PolyglotError as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # avoids a warning for a caller that has left
            return
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        for key, future in zip(keys, futures, strict=True):
            if not future.done():
                future.set_result(values.get(key))
