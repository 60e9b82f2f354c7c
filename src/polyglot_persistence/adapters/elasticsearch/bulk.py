"""Bulk requests: bounded, a few concurrently, with a result per item.

- 2xx: indexed
- an error of the index (blocked by a full disk, closed, gone): the whole call is retried later
- 408, 429, 5xx: retried after a pause, until the deadline
- other 4xx: this document can never be indexed
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

from polyglot_persistence.adapters.elasticsearch.answers import BulkAnswer, ItemAnswer
from polyglot_persistence.adapters.elasticsearch.connection import (
    BusyError,
    Connection,
    error_of,
)
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.search import IndexFailure
from polyglot_persistence.runtime.pauses import Pauses

BULK_DOCUMENTS_MAX = 2_000
"""The size of the worker's persist batch. A document costs the cluster a tenth to a fifth less CPU
time than in bulks of 1,000, and 5,000 gain nothing more."""

BULK_BYTES_MAX = 1_000_000
"""Enough for `BULK_DOCUMENTS_MAX` with usual names. From 1 MiB on aiohttp blocks the event loop
with a body and warns of it; Elastic's guide (tune for indexing speed) names tens of MB at most."""

BULKS_IN_FLIGHT_MAX = 2
"""The second one measured +36 % on two cores."""

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 2.0

_AGAIN = {408, 429}
_CLIENT_ERRORS, _NOT_THERE, _SERVER_ERRORS = 400, 404, 500

# They come with a status of 400, 403, 404 or 429, and are not about the document.
_OF_THE_INDEX = {
    "cluster_block_exception",
    "index_closed_exception",
    "index_not_found_exception",
    "security_exception",
    "strict_dynamic_mapping_exception",
}


class Item(NamedTuple):
    """A document to index or remove: its lines of a bulk request."""

    order_id: UUID
    lines: bytes


class Bulks:
    """Sends items to an alias; bounds the items in flight over all calls."""

    def __init__(self, connection: Connection, alias: str) -> None:
        self._connection = connection
        self._alias = alias
        self._in_flight = asyncio.Semaphore(BULKS_IN_FLIGHT_MAX)

    async def send(self, items: Sequence[Item], deadline: float) -> Sequence[IndexFailure]:
        """Return the items that can never be indexed; all others are indexed and fsynced.

        The deadline, on the event loop's clock, covers all of them together.

        Raises:
            UnavailableError: any of them may be missing.
        """
        results = await asyncio.gather(
            *(self._send_chunk(chunk, deadline) for chunk in chunks(items)), return_exceptions=True
        )
        failures: list[IndexFailure] = []
        for result in results:  # all have ended: nothing outlives the call
            if isinstance(result, BaseException):
                raise result
            failures += result
        return failures

    async def _send_chunk(self, chunk: Sequence[Item], deadline: float) -> Sequence[IndexFailure]:
        failures: list[IndexFailure] = []
        pauses = Pauses(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX)
        while True:
            async with self._turn(deadline):
                outcome = await self._request(chunk, deadline)
            failures += outcome.failures
            if not outcome.again:
                return failures
            chunk = outcome.again
            pause = pauses.next()
            if asyncio.get_running_loop().time() + pause > deadline:
                raise UnavailableError(f"Elasticsearch: no room for {len(chunk)} documents in time")
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                await self._in_flight.acquire()
        except TimeoutError as error:
            raise UnavailableError("Elasticsearch: no turn for a bulk in time") from error
        try:
            yield
        finally:
            self._in_flight.release()

    async def _request(self, chunk: Sequence[Item], deadline: float) -> "_Outcome":
        operations = b"".join([item.lines for item in chunk])
        try:
            answer = await self._connection.call(
                lambda client: client.bulk(
                    index=self._alias,
                    operations=[operations],  # type: ignore[list-item]  # taken as they are
                    require_alias=True,  # else a missing index is created with a guessed mapping
                    filter_path="errors,items.*.status,items.*.error",
                ),
                BulkAnswer,
                deadline,
            )
        except BusyError:  # the node refuses all bulks now
            return _Outcome([], chunk)
        if not answer.errors:
            return _Outcome([], [])
        return _sorted(chunk, answer.items)


class _Outcome(NamedTuple):
    failures: Sequence[IndexFailure]
    again: Sequence[Item]


def _sorted(chunk: Sequence[Item], told: Sequence[ItemAnswer]) -> _Outcome:
    results = [result for answer in told if (result := answer.index or answer.delete)]
    if len(results) != len(chunk):
        raise UnavailableError(f"Elasticsearch: told of {len(results)} of {len(chunk)} documents")
    failures = []
    again = []
    for item, result in zip(chunk, results, strict=True):
        if result.status == _NOT_THERE and result.error is None:
            continue  # removing a missing document succeeds
        status = result.status
        if status < _CLIENT_ERRORS:
            continue
        kind, reason = error_of(result.error)
        if kind in _OF_THE_INDEX:
            raise UnavailableError(f"Elasticsearch: {kind}: {reason}")
        if status in _AGAIN or status >= _SERVER_ERRORS:
            again.append(item)
        else:
            failures.append(IndexFailure(item.order_id, f"{kind}: {reason}"))
    return _Outcome(failures, again)


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Divide the items by number and by bytes; an item that is too long goes alone."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        full = len(chunk) == BULK_DOCUMENTS_MAX or size + len(item.lines) > BULK_BYTES_MAX
        if chunk and full:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.lines)
    if chunk:
        yield chunk
