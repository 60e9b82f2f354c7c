"""Batches concurrent searches into one request (`_msearch`).

A request costs this process and the cluster more than most of the searches in it. No search waits
for others: it leaves with those of the same turn of the event loop, or those that arrived while
`REQUESTS_MAX` requests were running.

A node that is lost between the two phases of a search fails it, though another node has a copy of
the shard: such a search is repeated once, if as much time is left as it took.

Invariant: a search covers the whole index, or fails.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from polyglot_persistence.adapters.elasticsearch.answers import (
    AnswerOrError,
    ManyAnswers,
    SearchAnswer,
)
from polyglot_persistence.adapters.elasticsearch.connection import Connection, meaning
from polyglot_persistence.errors import UnavailableError

REQUESTS_MAX = 2
"""Concurrent requests. With more, fewer searches share a request: with four, each cost this process
and the cluster a quarter more. Slow searches do not belong here: they would delay the rest."""

TOGETHER_MAX = 8
"""Callers per request. A node runs some of their searches at once, and answers all at the end."""

WAITING_MAX = 1_000

_LOST: Final = frozenset({500, 502, 503})
"""Statuses of a search that a node failed. Those of a bad one or of an overload are others."""

COPY = "polyglot"
"""Any text as the *preference* has all searches use the same copy of each shard while it is there.
Copies show a new document at different moments: with another copy for each search, an order that
was found would be missing in the next one."""

_HEADER = (
    b'{"allow_partial_search_results":false,"request_cache":true,"preference":"%b"}' % COPY.encode()
)
"""A page requested again before the next refresh comes from the cache, like a count."""


class _Asked(NamedTuple):
    searches: Sequence[bytes]
    deadline: float
    told: asyncio.Future[Sequence[SearchAnswer]]
    asked_at: float
    is_repeated: bool = False

    def may_be_repeated(self, now: float) -> bool:
        """Return whether a repetition would probably end before the deadline.

        One that does not would hide the error, and look as if no node answered.
        """
        return not self.is_repeated and self.deadline - now > now - self.asked_at


class Searches:
    """Runs searches on the index behind an alias."""

    def __init__(self, connection: Connection, alias: str) -> None:
        self._connection = connection
        self._alias = alias
        self._waiting: deque[_Asked] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def ask(self, *searches: Mapping[str, Any], deadline: float) -> Sequence[SearchAnswer]:
        """Return the responses to some searches, by a deadline on the event loop's clock.

        Raises:
            UnavailableError: any of them failed; `Connection.call` lists the kinds.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise UnavailableError("Elasticsearch: too many searches are waiting")
        loop = asyncio.get_running_loop()
        lines = [msgspec.json.encode(search) for search in searches]
        asked = _Asked(lines, deadline, loop.create_future(), loop.time())
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
        """Cancel all running requests."""
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
                if not asked.told.done():  # its caller has left
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
        now = asyncio.get_running_loop().time()
        answers = iter(many.responses)
        for asked in batch:
            own = [next(answers) for _ in asked.searches]
            if _is_lost(own) and asked.may_be_repeated(now):
                self._waiting.appendleft(asked._replace(is_repeated=True))
            else:
                _tell(asked, own)


def _is_lost(answers: Sequence[AnswerOrError]) -> bool:
    return any(one.error is not None and one.status in _LOST for one in answers)


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
            asked.told.exception()  # avoids a warning for a caller that has left
