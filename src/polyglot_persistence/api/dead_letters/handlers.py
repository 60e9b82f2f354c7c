"""Handlers that list, read, replay and discard dead letters.

Invariant: a bulk action needs a filter, or an explicit `all`.
Invariant: a request acts for a bounded time; the cursor in its answer resumes the action.
Invariant: if a store fails after the first effect of an action, the answer is 504 with what is
done.
"""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from polyglot_persistence.api.dead_letters.schemas import (
    KEPT_LISTED_MAX,
    ActionOut,
    ActionProblem,
    DeadLetterGroupOut,
    DeadLetterOut,
    DeadLetterPageOut,
    KeptOut,
    LetterPageParameters,
    WholeDeadLetterOut,
    parse_id,
)
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import client_of, next_page, until_revoked
from polyglot_persistence.api.web.json_text import Number, plain_values, pointer_step, twice
from polyglot_persistence.api.web.problems import UNKNOWN_OUTCOME
from polyglot_persistence.api.web.replies import Reply, json_reply
from polyglot_persistence.api.web.request_headers import check_json
from polyglot_persistence.config.limits import ApiLimits
from polyglot_persistence.domain.dead_letter import DeadLetterRow, LetterFilter
from polyglot_persistence.errors import (
    InvalidError,
    MalformedError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
    Violation,
)
from polyglot_persistence.flows.behind.dead_letters import (
    Action,
    CutShortError,
    DeadLetterFlow,
    Handled,
    Operator,
    Outcome,
)
from polyglot_persistence.ports.clock import Clock

ACTION_SECONDS = 10.0
"""A bulk action starts no slice after this time; clients and proxies wait 30 s and more."""


@dataclass
class DeadLetterRoutes:
    """The routes of dead letters."""

    letters: DeadLetterFlow
    clock: Clock
    limits: ApiLimits
    stopping: asyncio.Event

    async def page(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/admin/dead-letters: those that match, the latest first, and their kinds."""
        query = LetterPageParameters(request)
        chosen, before, limit = query.filter(), query.cursor, query.limit
        rows = await self.letters.page(chosen, before, limit + 1)
        out = DeadLetterPageOut([_letter_out(row) for row in rows[:limit]])
        if before is None:
            counts = await self.letters.count(chosen)
            out.total = counts.letters
            out.groups = [
                DeadLetterGroupOut(g.stage.value, g.reason, g.letters, g.last_at)
                for g in counts.groups
            ]
        if len(rows) > limit:
            out.next_cursor = str(rows[limit - 1].id)
            out.next = next_page(request, out.next_cursor)
        return json_reply(200, out)

    async def read(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/admin/dead-letters/{id}: one, with its payload."""
        row = await self.letters.get(_parse_id(request))
        text, encoded = _text_or_base64(row.letter.payload)
        head = msgspec.structs.asdict(_letter_out(row))
        return json_reply(200, WholeDeadLetterOut(**head, payload=text, payload_base64=encoded))

    async def replay(self, request: Request, _body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/{id}/replay: one, with its unit."""
        return await self._act_on_one(request, "replay")

    async def discard(self, request: Request, _body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/{id}/discard: one, with its unit."""
        return await self._act_on_one(request, "discard")

    async def replay_some(self, request: Request, body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/replay: all that match."""
        return await self._act_on_some(request, body, "replay")

    async def discard_some(self, request: Request, body: BodyReader) -> Reply:
        """POST /api/admin/dead-letters/discard: all that match."""
        return await self._act_on_some(request, body, "discard")

    async def _act_on_one(self, request: Request, action: Action) -> Reply:
        letter_id, out = _parse_id(request), _nothing(None)
        try:
            _add(out, await self.letters.act(action, letter_id, _operator(request)))
        except CutShortError as error:
            return _cut_short(error, out, request)
        return json_reply(200, out)

    async def _act_on_some(self, request: Request, body: BodyReader, action: Action) -> Reply:
        check_json(request.headers.get("content-type"))
        chosen, before = parse_choice(await body.read(self.limits.order_body_bytes_max))
        end = self.clock.monotonic() + ACTION_SECONDS
        out = _nothing(before)
        revoked = until_revoked(request)
        while True:
            try:
                part = await self.letters.act_on_slice(action, chosen, before, _operator(request))
            except (UnavailableError, UnknownOutcomeError) as error:
                if out == _nothing(before) and not isinstance(error, CutShortError):
                    raise
                return _cut_short(error, out, request)
            _add(out, part.handled)
            before = part.before
            out.next_cursor = None if before is None else str(before)
            is_over = self.clock.monotonic() >= end or self.stopping.is_set() or revoked.is_set()
            if before is None or is_over:
                return json_reply(200, out)


def _cut_short(error: PolyglotError, out: ActionOut, request: Request) -> Reply:
    """Return the problem for a store that failed after letters were, or may have been, handled."""
    if isinstance(error, CutShortError):
        _add(out, error.handled)
    detail = (
        "a store failed within the action: what `done` counts is done, and more may be; doing it "
        "again changes nothing that is done"
    )
    return ActionProblem.of(UNKNOWN_OUTCOME, detail, request.url.path, done=out).reply()


def _nothing(before: int | None) -> ActionOut:
    return ActionOut(0, 0, 0, 0, [], None if before is None else str(before))


def _add(out: ActionOut, handled: Sequence[Handled]) -> None:
    """Count the outcomes, and list the first letters that were kept."""
    for one in handled:
        setattr(out, one.outcome.value, getattr(out, one.outcome.value) + 1)
        if one.outcome is Outcome.KEPT and len(out.kept_letters) < KEPT_LISTED_MAX:
            out.kept_letters.append(KeptOut(one.letter_id, one.order_id, one.detail))


def parse_choice(body: bytes) -> tuple[LetterFilter, int | None]:
    """Parse the filter and the cursor from a body.

    Raises:
        MalformedError: it is not valid JSON.
        InvalidError: with every rule that it breaks; without a filter it needs `all`.
    """
    members = plain_values(body)
    if not isinstance(members, tuple):
        raise InvalidError(Violation("", "must be an object"))
    broken = [Violation(f"/{pointer_step(name)}", "is given twice") for name in twice(members)]
    given: dict[str, Any] = {}
    for name, value in members:
        try:
            given[name] = _field(name, value)
        except InvalidError as error:
            broken += error.violations
    filters = {name: given.get(name) for name in LetterFilter._fields}
    named = [name for name, value in filters.items() if value is not None]
    if given.get("all") and named:
        broken.append(Violation("/all", f"cannot be true beside {named[0]}"))
    if not broken and not named and not given.get("all"):
        names = ", ".join(filters)
        broken.append(Violation("", f'must name at least one of {names}, or say "all": true'))
    if broken:
        raise InvalidError(*broken)
    return LetterFilter(**filters), given.get("cursor")


_FIELDS = {one.name: one for one in LetterPageParameters.described if one.name != "limit"}


def _field(name: str, value: Any) -> Any:
    """Return the value of a body's field, parsed by the same rule as in a query string."""
    if name == "all" and isinstance(value, bool):
        return value
    if name == "all":
        raise InvalidError(Violation("/all", "must be true or false"))
    if name not in _FIELDS:
        raise InvalidError(Violation(f"/{pointer_step(name)}", "is an unknown field"))
    if value is None:
        return None
    is_text = isinstance(value, str) and not isinstance(value, Number)
    try:
        return _FIELDS[name].read(value if is_text else "")  # the empty text breaks each rule
    except InvalidError as error:
        rule = error.violations[0].detail.partition(";")[0]  # what follows is for query strings
        raise InvalidError(Violation(f"/{name}", rule)) from None


def _parse_id(request: Request) -> int:
    try:
        return parse_id(request.path_params["id"])
    except ValueError as error:
        raise MalformedError(str(error)) from None


def _operator(request: Request) -> Operator:
    address = request.client.host if request.client else "unknown"
    return Operator("request", client_of(request) or address)


def _letter_out(row: DeadLetterRow) -> DeadLetterOut:
    order_id, unit_id, _, reason, stage, attempts = row.letter
    moments = row.first_at, row.last_at
    return DeadLetterOut(row.id, order_id, unit_id, stage.value, reason, attempts, *moments)


def _text_or_base64(payload: bytes) -> tuple[str | None, str | None]:
    try:
        return payload.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(payload).decode()
