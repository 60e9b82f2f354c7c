"""POST /api/orders/import: newline-delimited JSON of any length, in bounded memory.

```
  body --> lines --> chunk of parsed orders --> accept_lines --> totals
             |  not readable: an error        |  refused for now: the same lines again,
             +-> in the answer                +--after a pause, with nothing read meanwhile
```

While the stores refuse, the body is not read, so that the client's own TCP connection holds it
back. After `wait_seconds` of that the answer says how far the import got.

Invariant: memory is bounded by one chunk and one line, and the answer by `ERRORS_MAX`.
Invariant: a line whose outcome is unknown is tried again under the id that it was given the first
time, so that no retry of the server's makes a second order.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from starlette.requests import Request

from polyglot_persistence.api.bodies import BodyReader, SlowSenderError
from polyglot_persistence.api.endpoint import client_of
from polyglot_persistence.api.ndjson import Line, LineSplitter
from polyglot_persistence.api.problems import (
    PROBLEM_HEADERS,
    TOO_SLOW,
    ImportProblem,
    detail_of,
    error_headers,
    kind_of,
    type_uri,
)
from polyglot_persistence.api.replies import Reply, encode_json, json_reply
from polyglot_persistence.api.request_headers import check_ndjson, parse_idempotency_key
from polyglot_persistence.api.requests import parse_import_line
from polyglot_persistence.api.schemas import ImportOut, LineErrorOut
from polyglot_persistence.domain.order import derived_id
from polyglot_persistence.errors import (
    PolyglotError,
    RejectedError,
    UnavailableError,
    UnknownOutcomeError,
    refused,
)
from polyglot_persistence.flows.accept import AcceptFlow, ImportLine
from polyglot_persistence.ports import Clock

ERRORS_MAX = 100
"""Rejected lines that the answer lists."""
PAUSE_FIRST_SECONDS = 0.05
PAUSE_LAST_SECONDS = 2.0


class _Pending(NamedTuple):
    """A line that is to be accepted."""

    number: int
    line: ImportLine
    tried: bool = False
    """Whether it may have been stored by an attempt under an id that only this server knows."""


@dataclass(slots=True)
class _Totals:
    """What became of the lines so far."""

    accepted: int = 0
    unchanged: int = 0
    rejected: int = 0
    lines_read: int = 0
    errors: list[LineErrorOut] = field(default_factory=list)

    def reject(self, number: int, detail: str, line_id: UUID | None = None) -> None:
        self.rejected += 1
        if len(self.errors) < ERRORS_MAX:
            text = None if line_id is None else str(line_id)
            self.errors.append(LineErrorOut(number, detail, text))


class _StoppedError(Exception):
    """The import cannot go on: why, and the lines of the last chunk that were not accepted."""

    def __init__(self, cause: PolyglotError, pending: Sequence[_Pending]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.pending = pending


class ImportRoute:
    """The import."""

    def __init__(
        self,
        accept: AcceptFlow,
        clock: Clock,
        *,
        line_bytes_max: int,
        chunk_orders: int,
        wait_seconds: float,
        stopping: asyncio.Event,
    ) -> None:
        self._accept = accept
        self._clock = clock
        self._line_bytes_max = line_bytes_max
        self._chunk_orders = chunk_orders
        self._wait_seconds = wait_seconds
        self._stopping = stopping

    async def run(self, request: Request, body: BodyReader) -> Reply:
        """Accept every valid line; report every other; end with the totals."""
        check_ndjson(request.headers.get("content-type"))
        key = parse_idempotency_key(request.headers.getlist("idempotency-key"))
        client = client_of(request)
        totals = _Totals()
        pending: list[_Pending] = []
        splitter = LineSplitter(self._line_bytes_max)

        async def take(lines: Iterator[Line]) -> None:
            now = self._clock.now()
            for line in lines:
                self._parse(line, (client, key), now, pending, totals)
                if len(pending) >= self._chunk_orders:
                    await self._accept_chunk(pending, totals)

        cause: PolyglotError | None = None
        try:
            try:
                async for chunk in body.chunks(self._stopping):
                    await take(splitter.feed(chunk))
            except SlowSenderError as error:
                cause = error
            if body.complete:
                await take(splitter.end())
            await self._accept_chunk(pending, totals)
        except _StoppedError as stopped:
            return _ended(stopped.cause, totals, stopped.pending, request.scope["path"])
        if not body.complete:
            cause = cause or refused("the server is about to stop")
            return _ended(cause, totals, (), request.scope["path"])
        out = ImportOut(
            totals.accepted,
            totals.unchanged,
            totals.rejected,
            totals.errors,
            totals.rejected - len(totals.errors),
        )
        return json_reply(200, out)

    def _parse(
        self,
        line: Line,
        identity: tuple[str, str | None],
        now: datetime,
        pending: list[_Pending],
        totals: _Totals,
    ) -> None:
        totals.lines_read = line.number
        if line.text is None:
            totals.reject(line.number, f"is longer than {self._line_bytes_max} bytes")
            return
        try:
            parsed = parse_import_line(line.text, now)
        except RejectedError as error:
            totals.reject(line.number, str(error))
            return
        client, key = identity
        if parsed.id is None and key is not None:
            parsed = parsed._replace(id=derived_id(client, key, line.number))
        pending.append(_Pending(line.number, parsed))

    async def _accept_chunk(self, pending: list[_Pending], totals: _Totals) -> None:
        """Accept the lines, or raise `_StoppedError` with those that were not."""
        deadline = self._clock.monotonic() + self._wait_seconds
        pause = PAUSE_FIRST_SECONDS
        todo = list(pending)
        pending.clear()
        while todo:
            todo, cause = await self._accept_once(todo, totals)
            if cause is None:
                return
            if self._clock.monotonic() + pause > deadline:
                raise _StoppedError(cause, todo)
            if self._stopping.is_set():
                raise _StoppedError(refused("the server is about to stop"), todo)
            # Jitter, so that imports that were refused together do not come back together.
            await self._clock.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(pause * 2, PAUSE_LAST_SECONDS)

    async def _accept_once(
        self, todo: Sequence[_Pending], totals: _Totals
    ) -> tuple[list[_Pending], PolyglotError | None]:
        """Return the lines that are worth another try, and why."""
        outcomes = await self._accept.accept_lines([pending.line for pending in todo])
        again: list[_Pending] = []
        cause: PolyglotError | None = None
        for pending, outcome in zip(todo, outcomes, strict=True):
            match outcome.error:
                case None if outcome.unchanged and not pending.tried:
                    totals.unchanged += 1
                case None:
                    totals.accepted += 1
                case UnknownOutcomeError() as error:
                    again.append(_tried(pending, outcome.id))
                    cause = error
                case UnavailableError() as error:
                    again.append(pending)
                    cause = cause or error
                case error:
                    totals.reject(pending.number, str(error), pending.line.id)
        return again, cause


def _tried(pending: _Pending, order_id: UUID) -> _Pending:
    """Return the line for another attempt that cannot make a second order."""
    if pending.line.id is not None:
        return pending
    return _Pending(pending.number, pending.line._replace(id=order_id), tried=True)


def _ended(
    cause: PolyglotError,
    totals: _Totals,
    pending: Sequence[_Pending],
    instance: str,
) -> Reply:
    """Return the problem that ended an import, with what was done and where to go on."""
    kind = TOO_SLOW if isinstance(cause, SlowSenderError) else kind_of(cause)
    numbers = [line.number for line in pending]
    body = ImportProblem(
        type_uri(kind),
        kind.title,
        kind.status,
        detail_of(cause),
        instance,
        accepted=totals.accepted,
        unchanged=totals.unchanged,
        rejected=totals.rejected,
        first_line_not_accepted=min([*numbers, totals.lines_read + 1]),
        lines_read=totals.lines_read,
        lines_not_accepted=numbers,
    )
    return kind.status, (*PROBLEM_HEADERS, *error_headers(cause)), encode_json(body)
