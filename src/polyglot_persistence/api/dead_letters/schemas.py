"""The query string and the JSON of dead letters, as types that parse, encode and describe them."""

import re
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from polyglot_persistence.api.web import queries as q
from polyglot_persistence.api.web.problems import Problem
from polyglot_persistence.api.web.schemas import Moment, NextPage
from polyglot_persistence.domain.dead_letter import LetterFilter, Stage

PAGE_LETTERS_MAX = 200
KEPT_LISTED_MAX = 100
REASON_CHARACTERS_MAX = 200
REASON_LIMITS = {"minLength": 1, "maxLength": REASON_CHARACTERS_MAX, "pattern": r"^[^\x00]*$"}
ID_PATTERN = "^[0-9]{1,18}$"
"""The ids of dead letters are the cursors of their pages."""

_ID = re.compile(ID_PATTERN, re.ASCII)


def _parse_reason(text: str) -> str | None:
    if "\x00" in text or not 1 <= len(text) <= REASON_CHARACTERS_MAX:
        raise ValueError(text)
    return text


def parse_id(text: str) -> int:
    """Return a dead letter's id.

    Raises:
        ValueError: it is not a whole number of at most 18 digits.
    """
    if not _ID.fullmatch(text):
        raise ValueError("a dead letter's id is a whole number of at most 18 digits")
    return int(text)


class LetterPageParameters(q.QueryParameters):
    """Filter and page of the list of dead letters."""

    reason = q.QueryParameter(
        "Text that the reason holds, in upper or lower case.",
        {"type": "string", **REASON_LIMITS},
        _parse_reason,
        None,
        f"must be a text of 1 to {REASON_CHARACTERS_MAX} characters",
    )
    stage = q.choice("Where it was condemned.", {one.value: one for one in Stage}, None)
    order_id = q.uuid("Of this order.")
    unit_id = q.uuid("Of this bulk.")
    since = q.moment("Tried in vain at this moment or later.")
    until = q.moment("And before this one.")
    cursor = q.cursor(parse_id, pattern=ID_PATTERN)
    limit = q.count("Letters a page.", 50, cap=PAGE_LETTERS_MAX)

    def filter(self) -> LetterFilter:
        """Return the filter."""
        return LetterFilter(
            self.reason, self.stage, self.order_id, self.unit_id, self.since, self.until
        )


StageName = Literal["decode", "persist", "index"]


class DeadLetterOut(msgspec.Struct, frozen=True, gc=False):
    """A dead letter without its payload."""

    id: int
    order_id: Annotated[UUID | None, Meta(description="Null if the payload names none.")]
    unit_id: Annotated[UUID | None, Meta(description="The bulk's id, or the order's own.")]
    stage: StageName
    reason: str
    attempts: Annotated[int, Meta(description="How often it was tried in vain.")]
    first_at: Moment
    last_at: Moment


class WholeDeadLetterOut(DeadLetterOut, frozen=True, gc=False):
    """A dead letter with its payload: the item of a message as it came."""

    payload: Annotated[str | None, Meta(description="Null if it is no UTF-8.")]
    payload_base64: Annotated[str | None, Meta(description="Only if it is no UTF-8.")]


class DeadLetterGroupOut(msgspec.Struct, frozen=True, gc=False):
    """Dead letters of one stage whose reasons differ in ids and positions only."""

    stage: StageName
    reason: str
    letters: int
    last_at: Moment


class DeadLetterPageOut(msgspec.Struct, omit_defaults=True):
    """Dead letters, the latest first; on the first page also how many there are of which kind."""

    letters: list[DeadLetterOut]
    total: int | None = None
    groups: Annotated[
        list[DeadLetterGroupOut] | None, Meta(description="The largest first, at most 100.")
    ] = None
    next: NextPage = None
    next_cursor: str | None = None


class DeadLetterChoiceIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters are meant: those that match every given filter, or all, by that word."""

    all: bool = False
    reason: Annotated[
        str | None,
        Meta(description=LetterPageParameters.reason.description, extra_json_schema=REASON_LIMITS),
    ] = None
    stage: StageName | None = None
    order_id: UUID | None = None
    unit_id: UUID | None = None
    since: Annotated[Moment | None, Meta(description=LetterPageParameters.since.description)] = None
    until: Annotated[Moment | None, Meta(description=LetterPageParameters.until.description)] = None
    cursor: Annotated[
        str | None,
        Meta(
            description="`next_cursor` of the answer before, to go on.",
            extra_json_schema={"pattern": ID_PATTERN},
        ),
    ] = None


class KeptOut(msgspec.Struct, frozen=True, gc=False):
    """A dead letter that is still there, and why."""

    id: int
    order_id: UUID | None
    detail: str


class ActionOut(msgspec.Struct, gc=False):
    """What became of dead letters."""

    persisted: Annotated[int, Meta(description="The order is in the record.")]
    reindexed: Annotated[int, Meta(description="The order waits to be indexed again.")]
    discarded: int
    kept: Annotated[int, Meta(description="Still there.")]
    kept_letters: Annotated[
        list[KeptOut], Meta(description=f"The first {KEPT_LISTED_MAX} of these.")
    ]
    next_cursor: Annotated[
        str | None, Meta(description="There are more: send the same body with this as `cursor`.")
    ]


class ActionProblem(Problem, frozen=True):
    """A problem that cut an action on dead letters short, with what was done until then."""

    done: Annotated[
        ActionOut | None,
        Meta(
            description="What is certain; more letters may have been handled. Doing it again, with "
            "`next_cursor` as `cursor` if there is one, changes nothing that is done."
        ),
    ] = None
