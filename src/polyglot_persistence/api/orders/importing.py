"""POST /api/orders/import: newline-delimited JSON of any length, in bounded memory.

```
  body --> lines --> chunk of parsed orders --> accept_lines --> totals
             |  not readable: an error        |  refused for now: the same lines again,
             +-> in the answer                +--after a pause, with nothing read meanwhile
```

While the stores refuse, the import does not read the body, so TCP flow control stops the client.
After `IMPORT_WAIT_SECONDS`, the answer says how far the import got. The same happens when the
client's key is revoked: no line is accepted after that.

Invariant: 200 means that every line is stored, unless the client asked for a report
(`on_rejected=report`); a partial import is a problem with the totals.
Invariant: one import never holds the event loop for longer than `TURN_SECONDS` and a line, or one
chunk of orders.
Invariant: memory is bounded by one chunk and one line, and the answer by `ERRORS_MAX` and a chunk.
Invariant: a line whose outcome is unknown is retried with the id of its first attempt, so the
server's retries never create a second order.
Invariant: the answer is 503 only if no attempt can have stored any of the listed lines. One attempt
with an unknown outcome makes it 504, whatever came later.
Invariant: with a key, a line's id is derived from its number, counted from `first_line`. So sending
the rest of a body with its own numbers, or the whole body, changes nothing that is stored.
Invariant: a line with an id of the form that idempotency keys derive is accepted only from an
operator, who restores an export, or if it repeats a stored order.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
from starlette.requests import Request

from polyglot_persistence.api.orders.ndjson import Line, LineSplitter
from polyglot_persistence.api.orders.requests import is_import_line, parse_import_line
from polyglot_persistence.api.orders.schemas import (
    ImportOut,
    ImportParameters,
    ImportProblem,
    LineErrorOut,
)
from polyglot_persistence.api.web.bodies import BodyReader, BrokenBodyError, SlowSenderError
from polyglot_persistence.api.web.endpoint import client_of, may, until_revoked
from polyglot_persistence.api.web.json_text import foreign_form
from polyglot_persistence.api.web.problems import (
    LINES_REJECTED,
    MALFORMED,
    TOO_SLOW,
    Kind,
    detail_of,
    error_headers,
    kind_of,
)
from polyglot_persistence.api.web.replies import Reply, json_reply
from polyglot_persistence.api.web.request_headers import check_ndjson, parse_idempotency_key
from polyglot_persistence.config.limits import ApiLimits
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.domain.order import derived_id, is_derived
from polyglot_persistence.errors import (
    ConflictError,
    MalformedError,
    PolyglotError,
    RejectedError,
    UnauthenticatedError,
    UnavailableError,
    UnknownOutcomeError,
    refused,
)
from polyglot_persistence.flows.intake.accept import AcceptFlow, ImportLine
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.runtime.pauses import Pauses

ERRORS_MAX = 100
"""The answer lists at most this many rejected lines."""
TURN_SECONDS = 0.005
"""An import yields to other tasks after this time."""
PIECE_BYTES = 4_096
"""Bytes split into lines at once; 4 KiB of blank lines take 2 ms."""
PAUSE_FIRST_SECONDS = 0.05
PAUSE_LAST_SECONDS = 2.0


class _Pending(NamedTuple):
    """A parsed line that waits to be accepted."""

    number: int
    line: ImportLine
    by_key: bool
    """Whether its id is derived from the idempotency key and the number."""
    may_be_stored: bool = False
    """Whether an earlier attempt had an unknown outcome."""


class _TooManyRejectedError(RejectedError):
    """Too many lines in a row were rejected; the rest is not read."""


class _Turn:
    """The time for which an import has held the event loop."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def end(self) -> None:
        """Yield to other tasks, if the turn is over."""
        if time.perf_counter() - self._began >= TURN_SECONDS:
            await asyncio.sleep(0)
            self._began = time.perf_counter()


class _StoppedError(Exception):
    """The import stopped: the cause, and the lines of the last chunk that were not accepted."""

    def __init__(self, cause: PolyglotError, pending: Sequence[_Pending] = ()) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.pending = pending


@dataclass
class ImportRoute:
    """The handler of imports."""

    accept: AcceptFlow
    clock: Clock
    limits: ApiLimits
    stopping: asyncio.Event

    async def run(self, request: Request, body: BodyReader) -> Reply:
        """Accept every valid line; report every other; end with the totals."""
        check_ndjson(request.headers.get("content-type"))
        key = parse_idempotency_key(request.headers.getlist("idempotency-key"))
        query = ImportParameters(request)
        one = _Import(
            self,
            client_of(request),
            key,
            may_restore=may(request, Scope.ADMIN),
            revoked=until_revoked(request),
            lines_read=query.first_line - 1,
        )
        try:
            await self._read(
                body, LineSplitter(self.limits.import_line_bytes_max, query.first_line), one
            )
        except _StoppedError as stopped:
            return one.problem(stopped, request.scope["path"])
        totals = one.totals
        if totals.rejected and not query.on_rejected:
            return one.rejected(request.scope["path"])
        return json_reply(200, totals)

    async def _read(self, body: BodyReader, splitter: LineSplitter, one: "_Import") -> None:
        """Accept every line, or raise `_StoppedError`; an incomplete last line is ignored."""
        cause: PolyglotError | None = None
        turn = _Turn()
        try:
            async for chunk in body.chunks(self.stopping, one.revoked):
                for begin in range(0, len(chunk), PIECE_BYTES):
                    piece = chunk[begin : begin + PIECE_BYTES]
                    await self._take(splitter.feed(piece), one, turn)
                    await turn.end()
            if body.complete:
                await self._take(splitter.end(), one, turn)
            else:
                cause = refused("the server is stopping")
        except (SlowSenderError, _TooManyRejectedError) as error:
            # Its traceback would keep this frame alive, and with it the body read so far.
            cause = error.with_traceback(None)
        await one.accept_chunk()
        if cause is not None:
            raise _StoppedError(cause)

    async def _take(self, lines: Iterator[Line], one: "_Import", turn: _Turn) -> None:
        now = self.clock.now()
        for line in lines:
            if line.text is None:
                hint = _hint(has_returns=line.has_returns)
                one.reject(
                    line.number, f"is longer than {self.limits.import_line_bytes_max} bytes{hint}"
                )
            else:
                await one.take(line.number, line.text, now)
            if one.rejected_in_a_row >= self.limits.import_rejected_in_a_row_max:
                raise _TooManyRejectedError(
                    f"{one.rejected_in_a_row} lines in a row were rejected, so the rest was not "
                    f"read; for example {one.first_error}"
                )
            await turn.end()


@dataclass
class _Import:
    """The state of one running import."""

    route: ImportRoute
    client: str
    key: str | None
    _: KW_ONLY
    may_restore: bool
    revoked: asyncio.Event
    lines_read: int
    totals: ImportOut = field(default_factory=lambda: ImportOut(0, 0, 0, [], 0))
    pending: list[_Pending] = field(default_factory=list)
    rejected_in_a_row: int = 0
    """Consecutive lines up to now that were not valid orders."""

    @property
    def _is_at_its_start(self) -> bool:
        """Whether nothing of a keyed import is stored, or was there before, as far as is known.

        Until then its lines go one by one: a first line that contradicts its id shows that the
        body's lines have other numbers than they had, while the whole can still be refused.
        """
        return self.key is not None and not (self.totals.accepted or self.totals.unchanged)

    def reject(self, number: int, detail: str) -> None:
        """Count a line that is not a valid order."""
        self.lines_read = number
        self.rejected_in_a_row += 1
        self._list(number, detail)

    def _list(self, number: int, detail: str, line_id: UUID | None = None) -> None:
        self.totals.rejected += 1
        if len(self.totals.errors) < ERRORS_MAX:
            text = None if line_id is None else str(line_id)
            self.totals.errors.append(LineErrorOut(number, detail, text))
        else:
            self.totals.errors_omitted += 1

    @property
    def first_error(self) -> str:
        """Number and fault of the first rejected line."""
        first = self.totals.errors[0]
        return f"line {first.line}: {first.detail}"

    async def take(self, number: int, text: bytes, now: datetime) -> None:
        """Parse a line, and accept the chunk if it is full.

        Raises:
            MalformedError: the first line shows that the body is another kind of file, so that
                none of its lines can be an order.
        """
        try:
            line = parse_import_line(text, now)
        except RejectedError as error:
            if number == 1:
                _check_form(text, now)
            self.reject(number, str(error) + _hint(has_returns=b"\r" in text))
            return
        self.lines_read = number
        self.rejected_in_a_row = 0
        by_key = line.id is None and self.key is not None
        if line.id is None and self.key is not None:
            line = line._replace(id=derived_id(self.client, self.key, number))
        elif line.id is not None and is_derived(line.id) and not self.may_restore:
            line = line._replace(must_be_there=True)
        self.pending.append(_Pending(number, line, by_key))
        if self._is_at_its_start or len(self.pending) >= self.route.limits.import_chunk_orders:
            await self.accept_chunk()

    async def accept_chunk(self) -> None:
        """Accept the lines taken, or raise `_StoppedError` with those that were not accepted.

        Raises:
            ConflictError: the body begins with a line that its id contradicts; nothing is stored.
        """
        deadline = self.route.clock.monotonic() + self.route.limits.import_wait_seconds
        pauses = Pauses(PAUSE_FIRST_SECONDS, PAUSE_LAST_SECONDS)
        todo, self.pending = self.pending, []
        while todo or self.revoked.is_set():
            if self.revoked.is_set():
                raise _StoppedError(_revoked(), todo)
            todo, cause = await self._accept_once(todo)
            if cause is None:
                return
            pause = pauses.next()
            if self.route.clock.monotonic() + pause > deadline:
                raise _StoppedError(cause, todo)
            if self.route.stopping.is_set():
                raise _StoppedError(refused("the server is stopping"), todo)
            await self.route.clock.sleep(pause)

    async def _accept_once(
        self, todo: Sequence[_Pending]
    ) -> tuple[list[_Pending], PolyglotError | None]:
        """Return the lines to retry, and the cause."""
        totals, is_at_its_start = self.totals, self._is_at_its_start
        outcomes = await self.route.accept.accept_lines([pending.line for pending in todo])
        again: list[_Pending] = []
        cause: PolyglotError | None = None
        for pending, outcome in zip(todo, outcomes, strict=True):
            match outcome.error:
                # What an attempt of this import may have stored counts as new. With an id of its
                # own the line may have been there before all the same, which nobody can know.
                case None if outcome.unchanged and not pending.may_be_stored:
                    totals.unchanged += 1
                case None:
                    totals.accepted += 1
                case UnknownOutcomeError() as error:
                    again.append(_tried(pending, outcome.id))
                    cause = error
                case UnavailableError() as error:
                    again.append(pending)
                    cause = cause or error
                case error if pending.may_be_stored:  # of two contents the record takes one
                    again.append(pending)
                    cause = cause or error
                case ConflictError() if pending.by_key and is_at_its_start:
                    raise _other_lines(pending.number)
                case error:
                    self._list(pending.number, str(error), pending.line.id)
        return again, cause

    def rejected(self, instance: str) -> Reply:
        """Return the problem for an import that was read to its end but not stored completely."""
        totals = self.totals
        lines = totals.accepted + totals.unchanged + totals.rejected
        others = "none is" if totals.rejected == lines else "the others are"
        detail = (
            f"{totals.rejected} of {lines} lines rejected, {others} stored; "
            f"for example {self.first_error}"
        )
        body = self._problem(LINES_REJECTED, detail, instance)
        return body.reply()

    def problem(self, stopped: _StoppedError, instance: str) -> Reply:
        """Return the problem that ended the import, with the totals and the line to resume from."""
        cause = stopped.cause
        numbers = [line.number for line in stopped.pending]
        unknown = [line.number for line in stopped.pending if line.may_be_stored]
        if unknown and not isinstance(cause, UnknownOutcomeError):
            cause = UnknownOutcomeError(str(cause))
        first = min([*numbers, self.lines_read + 1])
        match cause:
            case BrokenBodyError():
                kind, why = MALFORMED, str(cause)
            case SlowSenderError():
                kind, why = TOO_SLOW, "the body arrived too slowly"
            case _TooManyRejectedError():
                kind, why = LINES_REJECTED, str(cause)
            case _:
                kind, why = kind_of(cause), detail_of(cause)
        if unknown:
            why = f"it is unknown whether {_in_words(unknown)} stored"
        detail = f"{why}; {self._how_to_resume(first, bool(unknown))}"
        body = msgspec.structs.replace(
            self._problem(kind, detail, instance),
            first_line_not_accepted=first,
            lines_not_accepted=numbers,
            lines_unknown=unknown,
        )
        return body.reply(error_headers(cause))

    def _problem(self, kind: Kind, detail: str, instance: str) -> ImportProblem:
        """Return a problem with the totals."""
        totals = self.totals
        return ImportProblem.of(
            kind,
            detail,
            instance,
            accepted=totals.accepted,
            unchanged=totals.unchanged,
            rejected=totals.rejected,
            lines_read=self.lines_read,
            lines_rejected=totals.errors,
            lines_rejected_omitted=totals.errors_omitted,
        )

    def _how_to_resume(self, first: int, is_any_unknown: bool) -> str:
        if self.key is not None:
            return (
                f"to resume, send line {first} and the rest with the same Idempotency-Key and "
                f"?first_line={first}, or the whole body again with the same key"
            )
        doubled = (
            "; one of lines_unknown that has no id may become a second order"
            if is_any_unknown
            else ""
        )
        return (
            "to resume, send lines_not_accepted and all lines after "
            f"line {self.lines_read}{doubled}"
        )


def _revoked() -> PolyglotError:
    return UnauthenticatedError(
        "this API key was revoked, or lost the scope for this", "invalid_token"
    )


def _hint(*, has_returns: bool) -> str:
    return (
        " (lines end with a line feed; a lone carriage return does not end one)"
        if has_returns
        else ""
    )


def _check_form(text: bytes, now: datetime) -> None:
    """Raise if the first line shows that the body is another kind of file."""
    if b"\r" in text and is_import_line(text.partition(b"\r")[0], now):
        raise MalformedError(
            "the lines of the body end with carriage returns alone, and would all be one; send "
            "line feeds (`tr '\\r' '\\n'` makes them)"
        )
    if form := foreign_form(text):
        raise MalformedError(f"the body is {form}; send JSON in UTF-8, one object a line")
    if text.lstrip().startswith(b"["):
        raise MalformedError(
            "the body is a JSON array; send one object a line, without brackets around them and "
            "commas between them (`jq -c '.[]'` makes such lines)"
        )


def _tried(pending: _Pending, order_id: UUID) -> _Pending:
    """Return the line with its id fixed, so that a retry cannot create a second order."""
    return pending._replace(line=pending.line._replace(id=order_id), may_be_stored=True)


def _other_lines(number: int) -> ConflictError:
    return ConflictError(
        f"line {number} under this idempotency key already stands for an order with other content, "
        "so nothing of this body was stored; to resume an import, send the number of its first "
        "line as the query parameter first_line; for another import, use a new key"
    )


def _in_words(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"line {numbers[0]} is"
    return f"{len(numbers)} lines from line {numbers[0]} on are"
