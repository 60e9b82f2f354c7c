"""Listing, reading, replaying and discarding dead letters.

Invariant: nothing is replayed or discarded in bulk that the body does not name: either a filter, or
all by that word.
Invariant: a request acts for a bounded time; a cursor in its answer says where to go on.
Invariant: an action that a store cut short after its first effect is 504, with what is done.
"""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

import msgspec
from starlette.requests import Request

from polyglot_persistence import tracing
from polyglot_persistence.api.dead_letters.schemas import (
    ActionOut,
    ActionProblem,
    DeadLetterChoiceIn,
    DeadLetterGroupOut,
    DeadLetterOut,
    DeadLetterPageOut,
    KeptOut,
    WholeDeadLetterOut,
)
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import client_of, own_path, until_revoked
from polyglot_persistence.api.web.json_text import plain_values, twice
from polyglot_persistence.api.web.problems import (
    PROBLEM_HEADERS,
    UNKNOWN_OUTCOME,
    type_uri,
)
from polyglot_persistence.api.web.queries import parse_count, parse_moment
from polyglot_persistence.api.web.replies import Reply, encode_json, json_reply
from polyglot_persistence.api.web.request_headers import check_json
from polyglot_persistence.domain.dead_letter import DeadLetterRow, LetterFilter, Stage
from polyglot_persistence.errors import (
    InvalidError,
    MalformedError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
    Violation,
)
from polyglot_persistence.flows.behind.dead_letters import (
    CutShortError,
    DeadLetterFlow,
    Handled,
    Operator,
    Outcome,
    Slice,
)
from polyglot_persistence.ports.clock import Clock

PAGE_LETTERS = 50
PAGE_LETTERS_MAX = 200
REASON_CHARACTERS_MAX = 200
KEPT_LISTED_MAX = 100

ACTION_SECONDS = 10.0
"""After so long a bulk action begins no further slice; clients and proxies wait 30 s and more."""

_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_POINTER = re.compile(r" - at `\$\.?(.*)`")
_FILTERS = ("reason", "stage", "order_id", "unit_id", "since", "until")

_A_REASON = f"a text of 1 to {REASON_CHARACTERS_MAX} characters"
_A_MOMENT = "a moment in RFC 3339 form with a time zone"

_One: TypeAlias = Callable[[int, Operator], Awaitable[Sequence[Handled]]]
_Some: TypeAlias = Callable[[LetterFilter, int | None, Operator], Awaitable[Slice]]


class DeadLetterRoutes:
    """The routes of dead letters."""

    def __init__(
        self,
        letters: DeadLetterFlow,
        clock: Clock,
        *,
        body_bytes_max: int,
        stopping: asyncio.Event,
    ) -> None:
        self._letters = letters
        self._clock = clock
        self._body_bytes_max = body_bytes_max
        self._stopping = stopping

    async def page(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/admin/dead-letters: those that match, the latest first, and their kinds."""
        chosen = _chosen_by_query(request)
        before = _parse_cursor(request.query_params.get("cursor"))
        limit = parse_count(request, "limit", otherwise=PAGE_LETTERS, cap=PAGE_LETTERS_MAX)
        rows = await self._letters.page(chosen, before, limit + 1)
        out = DeadLetterPageOut([_letter_out(row) for row in rows[:limit]])
        if before is None:
            counts = await self._letters.count(chosen)
            out.total = counts.letters
            out.groups = [
                DeadLetterGroupOut(g.stage.value, g.reason, g.letters, g.last_at)
                for g in counts.groups
            ]
        if len(rows) > limit:
            out.next_cursor = str(rows[limit - 1].id)
            out.next = str(request.url.include_query_params(cursor=out.next_cursor).query)
            out.next = f"{own_path(request)}?{out.next}"
        return json_reply(200, out)

    async def read(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/admin/dead-letters/{id}: one, with its payload."""
        row = await self._letters.get(_parse_id(request))
        text, encoded = _text_or_base64(row.letter.payload)
        head = _letter_out(row)
        return json_reply(
            200,
            WholeDeadLetterOut(
                **msgspec.structs.asdict(head), payload=text, payload_base64=encoded
            ),
        )

    async def replay(self, request: Request, _body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/{id}/replay: one, with its unit."""
        return await self._act_on_one(request, self._letters.replay)

    async def discard(self, request: Request, _body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/{id}/discard: one, with its unit."""
        return await self._act_on_one(request, self._letters.discard)

    async def replay_some(self, request: Request, body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/replay: all that match."""
        return await self._act_on_some(request, body, self._letters.replay_slice)

    async def discard_some(self, request: Request, body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/discard: all that match."""
        return await self._act_on_some(request, body, self._letters.discard_slice)

    async def _act_on_one(self, request: Request, act: _One) -> Reply:
        letter_id, tally = _parse_id(request), _Tally()
        try:
            tally.add(await act(letter_id, _operator(request)))
        except CutShortError as error:
            return _cut_short(error, tally, None, request)
        return json_reply(200, tally.out(None))

    async def _act_on_some(self, request: Request, body: BodyReader, act: _Some) -> Reply:
        check_json(request.headers.get("content-type"))
        chosen, before = parse_choice(await body.read(self._body_bytes_max))
        end = self._clock.monotonic() + ACTION_SECONDS
        tally = _Tally()
        revoked = until_revoked(request)
        while True:
            try:
                part = await act(chosen, before, _operator(request))
            except (UnavailableError, UnknownOutcomeError) as error:
                if tally.is_empty and not isinstance(error, CutShortError):
                    raise
                return _cut_short(error, tally, before, request)
            tally.add(part.handled)
            before = part.before
            is_over = self._clock.monotonic() >= end or self._stopping.is_set() or revoked.is_set()
            if before is None or is_over:
                return json_reply(200, tally.out(before))


def _cut_short(
    error: PolyglotError, tally: "_Tally", before: int | None, request: Request
) -> Reply:
    """Return the problem that a store's failure is after something was, or may have been, done."""
    if isinstance(error, CutShortError):
        tally.add(error.handled)
    body = ActionProblem(
        type_uri(UNKNOWN_OUTCOME),
        UNKNOWN_OUTCOME.title,
        UNKNOWN_OUTCOME.status,
        "a store failed within the action: what `done` counts is done, and more may be; doing it "
        "again changes nothing that is done",
        request.url.path,
        trace_id=tracing.trace_id(),
        done=tally.out(before),
    )
    return UNKNOWN_OUTCOME.status, PROBLEM_HEADERS, encode_json(body)


class _Tally:
    """What became of the letters of one request: counted, and the kept ones listed in part."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Outcome, 0)
        self._kept: list[KeptOut] = []

    @property
    def is_empty(self) -> bool:
        """Whether no letter was handled."""
        return not any(self._counts.values())

    def add(self, handled: Sequence[Handled]) -> None:
        """Count letters."""
        for one in handled:
            self._counts[one.outcome] += 1
            if one.outcome is Outcome.KEPT and len(self._kept) < KEPT_LISTED_MAX:
                self._kept.append(KeptOut(one.letter_id, one.order_id, one.detail))

    def out(self, before: int | None) -> ActionOut:
        """Return the answer."""
        return ActionOut(
            self._counts[Outcome.PERSISTED],
            self._counts[Outcome.REINDEXED],
            self._counts[Outcome.DISCARDED],
            self._counts[Outcome.KEPT],
            self._kept,
            None if before is None else str(before),
        )


def parse_choice(body: bytes) -> tuple[LetterFilter, int | None]:
    """Return which letters a body means, and below which id.

    Raises:
        MalformedError: it is no JSON.
        InvalidError: it breaks a rule, or names nothing.
    """
    try:
        choice = msgspec.json.decode(body, type=DeadLetterChoiceIn)
    except msgspec.ValidationError as error:
        raise InvalidError(_violation(error)) from None
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from None
    if names := twice(plain_values(body)):
        raise InvalidError(*(Violation(f"/{name}", "is given twice") for name in names))
    named = [name for name in _FILTERS if getattr(choice, name) is not None]
    if choice.all and named:
        raise InvalidError(Violation("/all", f"cannot be true beside {named[0]}"))
    if not choice.all and not named:
        raise InvalidError(
            Violation("", f'must name at least one of {", ".join(_FILTERS)}, or say "all": true')
        )
    if choice.reason is not None and not _is_reason(choice.reason):
        raise InvalidError(Violation("/reason", f"must be {_A_REASON}"))
    for name in ("since", "until"):
        if (moment := getattr(choice, name)) is not None and not _has_utc(moment):
            raise InvalidError(Violation(f"/{name}", f"must be {_A_MOMENT}"))
    if choice.cursor is not None and not _ID.fullmatch(choice.cursor):
        raise InvalidError(Violation("/cursor", "was not given out by this API"))
    chosen = LetterFilter(
        choice.reason,
        None if choice.stage is None else Stage(choice.stage),
        choice.order_id,
        choice.unit_id,
        choice.since,
        choice.until,
    )
    return chosen, _parse_cursor(choice.cursor)


def _chosen_by_query(request: Request) -> LetterFilter:
    stage = request.query_params.get("stage")
    if stage is not None and stage not in {one.value for one in Stage}:
        raise MalformedError("the query parameter stage must be decode, persist or index")
    reason = request.query_params.get("reason")
    if reason is not None and not _is_reason(reason):
        raise MalformedError(f"the query parameter reason must be {_A_REASON}")
    return LetterFilter(
        reason,
        None if stage is None else Stage(stage),
        _id_of_query(request, "order_id"),
        _id_of_query(request, "unit_id"),
        parse_moment(request, "since"),
        parse_moment(request, "until"),
    )


def _id_of_query(request: Request, name: str) -> UUID | None:
    try:
        return msgspec.convert(request.query_params.get(name), UUID | None)
    except msgspec.ValidationError:
        raise MalformedError(f"the query parameter {name} must be a UUID") from None


def _is_reason(text: str) -> bool:
    return "\x00" not in text and 1 <= len(text) <= REASON_CHARACTERS_MAX


def _has_utc(moment: datetime) -> bool:
    """Whether it is a moment in UTC, too: the first and last days of the calendar may be none."""
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _parse_id(request: Request) -> int:
    text = request.path_params["id"]
    if not _ID.fullmatch(text):
        raise MalformedError("a dead letter's id is a whole number")
    return int(text)


def _parse_cursor(text: str | None) -> int | None:
    if text is None:
        return None
    if not _ID.fullmatch(text):
        raise MalformedError("this cursor was not given out by this API")
    return int(text)


def _violation(error: msgspec.ValidationError) -> Violation:
    words = str(error)
    found = _POINTER.search(words)
    pointer = "/" + found[1].replace(".", "/") if found and found[1] else ""
    return Violation(pointer, _POINTER.sub("", words))


def _operator(request: Request) -> Operator:
    address = request.client.host if request.client else "unknown"
    return Operator("request", client_of(request) or address)


def _letter_out(row: DeadLetterRow) -> DeadLetterOut:
    letter = row.letter
    return DeadLetterOut(
        row.id,
        letter.order_id,
        letter.unit_id,
        letter.stage.value,
        letter.reason,
        letter.attempts,
        row.first_at,
        row.last_at,
    )


def _text_or_base64(payload: bytes) -> tuple[str | None, str | None]:
    try:
        return payload.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(payload).decode()
