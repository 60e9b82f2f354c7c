"""The JSON of health and live figures, as types that encode and describe it."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from polyglot_persistence.api.web.schemas import Moment
from polyglot_persistence.flows.watch.live import RATE_SECONDS
from polyglot_persistence.flows.watch.system_state import DEAD_LETTERS_COUNTED_MAX


class LiveOut(msgspec.Struct, frozen=True, gc=False):
    """The process runs."""

    status: Literal["alive"] = "alive"


class StoreOut(msgspec.Struct, frozen=True, gc=False):
    """The state of one store."""

    up: bool
    version: str | None = None
    warnings: Annotated[
        list[str], Meta(description="Settings of the store that endanger a guarantee.")
    ] = []
    error: str | None = None


class ReadyOut(msgspec.Struct, frozen=True, gc=False):
    """Whether orders can be accepted, and what is missing."""

    status: Literal["ready", "not ready"]
    mode: Annotated[str, Meta(description="`normal`, or what is missing.", examples=["normal"])]
    stores: Annotated[
        dict[str, StoreOut] | UnsetType,
        Meta(
            description="By role: cache, queue, record, search. Only for clients with the scope "
            "`admin`."
        ),
    ] = UNSET


class FiguresOut(msgspec.Struct, frozen=True, gc=False):
    """The whole system at one moment; figures of a store that did not answer are null."""

    at: Moment
    accepted: Annotated[int | None, Meta(description="Orders persisted or dirty.")]
    persisted: Annotated[int | None, Meta(description="Orders in the record.")]
    indexed: Annotated[int | None, Meta(description="Orders in the record that are searchable.")]
    accepted_per_second: Annotated[
        float | None, Meta(description=f"Mean of at most the last {RATE_SECONDS:g} s.")
    ]
    persisted_per_second: float | None
    indexed_per_second: float | None
    dirty: Annotated[int | None, Meta(description="Orders accepted and not yet persisted.")]
    dirty_age_seconds: Annotated[float | None, Meta(description="Of the oldest; 0 if none.")]
    queue_messages: Annotated[int | None, Meta(description="Messages not delivered to a worker.")]
    outbox: Annotated[int | None, Meta(description="Orders persisted and not yet searchable.")]
    outbox_age_seconds: float | None
    dead_letters: Annotated[
        int | None,
        Meta(description=f"At most {DEAD_LETTERS_COUNTED_MAX:,}, which means that many or more."),
    ]
    latest_dead_letter: int | None
    view_refreshed_at: Moment | None
    cold: Annotated[
        bool | None,
        Meta(description="While true, an unknown id is answered 503, not 404."),
    ]
