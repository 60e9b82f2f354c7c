"""Searches that are asked at about the same time travel together, as one request (`_msearch`).

A request costs this process and the cluster more than most of the searches in it. Nothing waits for
company: a search leaves with whatever else was asked in its turn of the event loop, or while all of
`REQUESTS_MAX` were under way.

Invariant: a search is answered by all of the index, or not at all.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from polyglot_persistence.adapters.elasticsearch.answers import (
    AnswerOrError,
    ManyAnswers,
    SearchAnswer,
)
from polyglot_persistence.adapters.elasticsearch.connection import Connection, meaning
from polyglot_persistence.errors import UnavailableError

REQUESTS_MAX = 2
"""Under way at once. With more, fewer searches share a request: with four, each cost this process
and the cluster a quarter more. What takes long does not belong here, it would hold up the rest."""

TOGETHER_MAX = 8
"""Callers a request. A node works at some of their searches at once, and answers all at the end."""

WAITING_MAX = 1_000

_HEADER = b'{"allow_partial_search_results":false,"request_cache":true}'
"""A page that was asked for since the last refresh is answered from memory, as a count is."""


class _Asked(NamedTuple):
    searches: Sequence[bytes]
    deadline: float
    told: asyncio.Future[Sequence[SearchAnswer]]


class Searches:
    """Asks the index behind an alias."""

    def __init__(self, connection: Connection, alias: str) -> None:
        self._connection = connection
        self._alias = alias
        self._waiting: deque[_Asked] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def ask(self, *searches: Mapping[str, Any], deadline: float) -> Sequence[SearchAnswer]:
        """Return the answers to some searches, by a deadline on the event loop's clock.

        Raises:
            UnavailableError: any of them has none; `Connection.call` says which there are.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise UnavailableError("Elasticsearch: too many searches are waiting")
        loop = asyncio.get_running_loop()
        lines = [msgspec.json.encode(search) for search in searches]
        asked = _Asked(lines, deadline, loop.create_future())
        self._waiting.append(asked)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._send)
        try:
            async with asyncio.timeout_at(deadline):
                return await asked.told
        except TimeoutError as error:
            raise UnavailableError("Elasticsearch: no answer in time") from error

    async def close(self) -> None:
        """Give up what is under way."""
        while self._under_way:
            for task in self._under_way:
                task.cancel()
            await asyncio.wait(self._under_way)

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._under_way) < REQUESTS_MAX:
            batch: list[_Asked] = []
            while self._waiting and len(batch) < TOGETHER_MAX:
                asked = self._waiting.popleft()
                if not asked.told.done():  # its caller has gone
                    batch.append(asked)
            if batch:
                task = asyncio.create_task(self._request(batch))
                self._under_way.add(task)
                task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._send()

    async def _request(self, batch: Sequence[_Asked]) -> None:
        lines = [line for asked in batch for search in asked.searches for line in (_HEADER, search)]
        try:
            many = await self._connection.call(
                lambda client: client.msearch(
                    index=self._alias,
                    searches=lines,  # type: ignore[arg-type]  # taken as they are
                ),
                ManyAnswers,
                max(asked.deadline for asked in batch),
            )
        except UnavailableError as error:
            _fail(batch, error)
            return
        except BaseException:
            _fail(batch, UnavailableError("Elasticsearch: the connection is closed"))
            raise
        if len(many.responses) != len(lines) // 2:
            _fail(batch, UnavailableError("Elasticsearch: not as many answers as searches"))
            return
        answers = iter(many.responses)
        for asked in batch:
            _tell(asked, [next(answers) for _ in asked.searches])


def _tell(asked: _Asked, answers: Sequence[AnswerOrError]) -> None:
    if asked.told.done():
        return
    try:
        asked.told.set_result([_answer(answer) for answer in answers])
    except UnavailableError as error:
        _fail([asked], error)


def _answer(answer: AnswerOrError) -> SearchAnswer:
    if answer.error is not None:
        raise meaning(answer.status, answer.error)
    if answer.hits is None:
        raise UnavailableError("Elasticsearch: not its answer: neither hits nor an error")
    return SearchAnswer(answer.hits, answer.aggregations)


def _fail(batch: Sequence[_Asked], error: UnavailableError) -> None:
    for asked in batch:
        if not asked.told.done():
            asked.told.set_exception(error)
            asked.told.exception()  # a caller that left need not be warned about
