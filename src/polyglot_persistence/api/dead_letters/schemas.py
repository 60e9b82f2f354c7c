"""The JSON of dead letters, as types that decode, encode and describe it."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from polyglot_persistence.api.web.problems import Problem
from polyglot_persistence.api.web.schemas import Moment, NextPage

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
        Meta(
            description="Text that the reason holds, in upper or lower case.",
            extra_json_schema={"minLength": 1, "maxLength": 200, "pattern": r"^[^\x00]*$"},
        ),
    ] = None
    stage: StageName | None = None
    order_id: UUID | None = None
    unit_id: UUID | None = None
    since: Annotated[Moment | None, Meta(description="Tried in vain at this moment or later.")] = (
        None
    )
    until: Annotated[Moment | None, Meta(description="And before this one.")] = None
    cursor: Annotated[
        str | None,
        Meta(
            description="`next_cursor` of the answer before, to go on.",
            extra_json_schema={"pattern": "^[0-9]{1,18}$"},
        ),
    ] = None


class KeptOut(msgspec.Struct, frozen=True, gc=False):
    """A dead letter that is still there, and why."""

    id: int
    order_id: UUID | None
    detail: str


class ActionOut(msgspec.Struct, frozen=True, gc=False):
    """What became of dead letters."""

    persisted: Annotated[int, Meta(description="The order is in the record.")]
    reindexed: Annotated[int, Meta(description="The order waits to be indexed again.")]
    discarded: int
    kept: Annotated[int, Meta(description="Still there.")]
    kept_letters: Annotated[list[KeptOut], Meta(description="The first 100 of these.")]
    next_cursor: Annotated[
        str | None,
        Meta(description="There are more: send the same body with this as `cursor`."),
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
