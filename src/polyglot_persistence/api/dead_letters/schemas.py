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
_REASON = re.compile(rf"[^\x00\ud800-\udfff]{{1,{REASON_CHARACTERS_MAX}}}")


def _parse_reason(text: str) -> str | None:
    if not _REASON.fullmatch(text):
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
        "The reason contains this text, in upper or lower case.",
        {"type": "string", **REASON_LIMITS},
        _parse_reason,
        None,
        f"must be a text of 1 to {REASON_CHARACTERS_MAX} characters",
    )
    stage = q.choice("Failed in this stage.", {one.value: one for one in Stage}, None)
    order_id = q.uuid("Of the order with this id.")
    unit_id = q.uuid("Of the bulk with this id.")
    since = q.moment("Last failed at or after this moment.")
    until = q.moment("Last failed before this moment.")
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
    order_id: Annotated[UUID | None, Meta(description="Null if the payload has none.")]
    unit_id: Annotated[UUID | None, Meta(description="The bulk's id, or the order's own.")]
    stage: StageName
    reason: str
    attempts: Annotated[int, Meta(description="Number of failed attempts.")]
    first_at: Moment
    last_at: Moment


class WholeDeadLetterOut(DeadLetterOut, frozen=True, gc=False):
    """A dead letter with its payload, the original item of a message."""

    payload: Annotated[str | None, Meta(description="Null if it is not UTF-8.")]
    payload_base64: Annotated[str | None, Meta(description="Only if it is not UTF-8.")]


class DeadLetterGroupOut(msgspec.Struct, frozen=True, gc=False):
    """Dead letters of one stage whose reasons differ only in ids and positions."""

    stage: StageName
    reason: str
    letters: int
    last_at: Moment


class DeadLetterPageOut(msgspec.Struct, omit_defaults=True):
    """Dead letters, latest first; the first page also counts them by stage and reason."""

    letters: list[DeadLetterOut]
    total: int | None = None
    groups: Annotated[
        list[DeadLetterGroupOut] | None, Meta(description="The largest first, at most 100.")
    ] = None
    next: NextPage = None
    next_cursor: str | None = None


class DeadLetterChoiceIn(msgspec.Struct, forbid_unknown_fields=True):
    """The chosen dead letters: those that match every given filter, or all of them."""

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
            description="`next_cursor` of the answer before, to continue.",
            extra_json_schema={"pattern": ID_PATTERN},
        ),
    ] = None


class KeptOut(msgspec.Struct, frozen=True, gc=False):
    """A dead letter that was kept, and why."""

    id: int
    order_id: UUID | None
    detail: str


class ActionOut(msgspec.Struct, gc=False):
    """The outcome of an action on dead letters."""

    persisted: Annotated[int, Meta(description="The order is in the record.")]
    reindexed: Annotated[int, Meta(description="The order will be indexed again.")]
    discarded: int
    kept: Annotated[int, Meta(description="Still there.")]
    kept_letters: Annotated[
        list[KeptOut], Meta(description=f"The first {KEPT_LISTED_MAX} of these.")
    ]
    next_cursor: Annotated[
        str | None, Meta(description="There are more: send the same body with this as `cursor`.")
    ]


class ActionProblem(Problem, frozen=True):
    """A problem that interrupted an action on dead letters, with what was done before."""

    done: Annotated[
        ActionOut | None,
        Meta(
            description="What is certain; more letters may have been handled. Repeating it, with "
            "`next_cursor` as `cursor` if there is one, changes nothing that is done."
        ),
    ] = None
