"""What goes on beside an operator's command: orders that arrive, searches that must stay right."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import msgspec

from bench.open_loop import OpenLoop, percentile, post

SLICE_SECONDS = 5.0
"""Orders are sent in slices; between two of them the last answers are awaited, some ms."""

LOOK_SECONDS = 0.05
ANSWER_SECONDS = 30.0

Work: TypeAlias = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Goes on until the event is set; its failure ends what it goes on beside."""


class WrongAnswerError(Exception):
    """The service gave an answer that it must never give."""


@contextlib.asynccontextmanager
async def beside(*works: Work) -> AsyncIterator[None]:
    """Let works go on while the body runs; the first failure of any of them is raised as it is."""
    ended = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work(ended))
            try:
                yield
            finally:
                ended.set()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None  # a report of one line would only say: a group


def orders_arrive(url: str, bodies: Path, orders_per_second: float) -> Work:
    """Return a work that sends single orders evenly, whether earlier ones are answered or not.

    It fails if one is not accepted.
    """
    requests = [post("/api/orders", body) for body in bodies.read_bytes().splitlines()]

    async def send(ended: asyncio.Event) -> None:
        async with OpenLoop(url) as clients:
            while not ended.is_set():
                answers = await clients.run(requests, rate=orders_per_second, seconds=SLICE_SECONDS)
                if refused := [answer for answer in answers if answer.status != 202]:
                    raise WrongAnswerError(f"{len(refused)} orders not accepted: {refused[0]}")

    return send


class _Found(msgspec.Struct):
    total: int
    total_is: str


class Watched:
    """A search whose total is known: it is to stay, or, if `may_grow`, never to fall."""

    def __init__(self, path: str, total: int, *, may_grow: bool = False) -> None:
        self.path = path
        self.looks_ms: list[float] = []
        self._total = total
        self._may_grow = may_grow

    def look(self, status: int, body: bytes) -> None:
        """Take an answer.

        Raises:
            WrongAnswerError: it is a failure, empty, or does not count what there is.
        """
        if status != httpx2.codes.OK:
            raise WrongAnswerError(f"{self.path} was answered {status}: {body[:500]!r}")
        found = msgspec.json.decode(body, type=_Found)
        grown = self._may_grow and found.total > self._total
        if (
            found.total_is != "exact"
            or not (grown or found.total == self._total)
            or not found.total
        ):
            raise WrongAnswerError(
                f"{self.path} found {found.total_is} {found.total} of {self._total} orders"
            )
        self._total = found.total


def searches_stay_right(url: str, watched: Sequence[Watched]) -> Work:
    """Return a work that asks each search again and again, and fails at the first wrong answer."""

    async def watch(ended: asyncio.Event) -> None:
        timeout = httpx2.Timeout(ANSWER_SECONDS)
        async with httpx2.AsyncClient(base_url=url, timeout=timeout, trust_env=False) as client:
            while not ended.is_set():
                for one in watched:
                    answer = await client.get(one.path)
                    one.look(answer.status_code, answer.content)
                    one.looks_ms.append(answer.elapsed.total_seconds() * 1000)
                await asyncio.sleep(LOOK_SECONDS)

    return watch


def told(watched: Sequence[Watched]) -> str:
    """Return how often the searches were asked, and how long they took."""
    looks_ms = [took for one in watched for took in one.looks_ms]
    if not looks_ms:
        raise WrongAnswerError("no search was watched")
    return f"{len(looks_ms):,} right answers, p99 {percentile(looks_ms, 99):.0f} ms"
