"""At 1,000 orders/s, open loop: answered, persisted, searchable, as an onlooker sees it.

Every `SAMPLE`-th order is looked up in PostgreSQL and in Elasticsearch, from its 202 on, again and
again until it is there. So a lag is what a reader of that store would see, the commit and the
refresh included, up to one look (about 2 and 20 ms) too long.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import msgspec

from bench.context import Context
from bench.figures import Figure, Goal
from bench.open_loop import Answer, OpenLoop, percentile, post
from bench.stock import fill, looks, settled

RATE = 1_000
SAMPLE = 20
WARM_UP_ORDERS = 10_000
WARM_UP_SECONDS = 3.0
LOOK_RECORD_SECONDS = 0.002
LOOK_INDEX_SECONDS = 0.02

Find = Callable[[Sequence[str]], Awaitable[set[str]]]


class _Accepted(msgspec.Struct):
    order_id: str


class Onlooker:
    """Looks for sampled orders in one store and notes how long each took to appear."""

    def __init__(self, find: Find, pause_seconds: float) -> None:
        self._find = find
        self._pause_seconds = pause_seconds
        self._pending: dict[str, float] = {}
        self.lags_ms: list[float] = []

    def expect(self, order_id: str, accepted: float) -> None:
        """Look for it from now on."""
        self._pending[order_id] = accepted

    async def look(self) -> None:
        """Look until cancelled."""
        while True:
            if self._pending:
                found = await self._find(list(self._pending))
                now = time.perf_counter()
                self.lags_ms += [(now - self._pending.pop(one)) * 1000 for one in found]
            await asyncio.sleep(self._pause_seconds)

    async def done(self) -> None:
        """Return once everything that was expected has come."""
        async for _ in looks(0.01, 30):
            if not self._pending:
                return


async def run(context: Context) -> Sequence[Figure]:
    """Measure; the peer's lag is not: at this rate its queue grows without end."""
    product = context.product
    await product.wipe()
    await fill(context, product, WARM_UP_ORDERS)
    connection = await product.record.connect()

    async def in_record(ids: Sequence[str]) -> set[str]:
        query = "SELECT id FROM orders WHERE id = ANY($1::uuid[])"
        return {str(row[0]) for row in await connection.fetch(query, list(map(UUID, ids)))}

    async def in_index(ids: Sequence[str]) -> set[str]:
        body = {"query": {"ids": {"values": ids}}, "_source": False, "size": len(ids)}
        answer = await product.index.call("POST", f"/{product.index.name}/_search", body)
        return {hit["_id"] for hit in answer["hits"]["hits"]}

    onlookers = Onlooker(in_record, LOOK_RECORD_SECONDS), Onlooker(in_index, LOOK_INDEX_SECONDS)
    answers: list[Answer] = []
    looking = [asyncio.create_task(onlooker.look()) for onlooker in onlookers]
    try:
        answers = await _offer(context, onlookers)
        for onlooker in onlookers:
            await onlooker.done()
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        await connection.close()
    await settled(product)
    await product.worker.stop()
    lates = [answer.late_ms for answer in answers]
    context.tell(f"lag: requests were sent {percentile(lates, 99):.1f} ms late (p99)")
    accepted = [answer.latency_ms for answer in answers]
    persisted, searchable = (onlooker.lags_ms for onlooker in onlookers)
    return [
        *_figures("accepted", accepted, None),
        *_figures("persisted", persisted, 30),
        *_figures("searchable", searchable, 1_200),
    ]


async def _offer(context: Context, onlookers: Sequence[Onlooker]) -> list[Answer]:
    bodies = context.files.singles.read_bytes().splitlines()
    requests = [post("/api/orders", body) for body in bodies]
    number = 0

    def sample(answer: Answer) -> None:
        nonlocal number
        number += 1
        if number % SAMPLE == 0:
            order_id = msgspec.json.decode(answer.body, type=_Accepted).order_id
            for onlooker in onlookers:
                onlooker.expect(order_id, answer.answered)

    async with OpenLoop(context.product.url) as clients:
        await clients.run(requests, rate=RATE, seconds=WARM_UP_SECONDS)
        answers = await clients.run(
            requests, rate=RATE, seconds=context.seconds(20, 60), on_answer=sample
        )
    if refused := [answer for answer in answers if answer.status != 202]:
        raise RuntimeError(f"{len(refused)} orders were not accepted: {refused[0]}")
    return answers


def _figures(what: str, values: Sequence[float], goal: float | None) -> list[Figure]:
    return [
        Figure(
            f"lag at 1,000/s: {what}, p{percent}",
            "ms",
            [percentile(values, percent)],
            goal=Goal("at most", goal) if goal and percent == 99 else None,
            higher_is_better=False,
        )
        for percent in (50, 99)
    ]
