"""What is published about the routes of dead letters."""

from typing import Any

from polyglot_persistence.api.dead_letters import schemas as s
from polyglot_persistence.api.dead_letters.handlers import (
    ACTION_SECONDS,
    PAGE_LETTERS,
    PAGE_LETTERS_MAX,
    REASON_CHARACTERS_MAX,
)
from polyglot_persistence.api.web import problems as p
from polyglot_persistence.api.web.descriptions import (
    BODY_PROBLEMS,
    JSON,
    MOMENT,
    ORDER_ID,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    Answer,
    Content,
    Operation,
    Parameter,
)

_REASON = "PostgreSQL can never hold this value: numeric field overflow (22003)"
_LETTER: dict[str, Any] = {
    "id": 17,
    "order_id": ORDER_ID,
    "unit_id": ORDER_ID,
    "stage": "persist",
    "reason": _REASON,
    "attempts": 1,
    "first_at": MOMENT,
    "last_at": MOMENT,
}
_PERSISTED = {
    "persisted": 1,
    "reindexed": 0,
    "discarded": 0,
    "kept": 0,
    "kept_letters": [],
    "next_cursor": None,
}
_DISCARDED = {**_PERSISTED, "persisted": 0, "discarded": 1}
_UNIT = (
    "A bulk is handled whole, whichever of its letters is named, and nothing else that came under "
    "its idempotency key. "
)
_AGAIN = (
    "503: nothing was done. 504: a store failed meanwhile; `done` counts what is certain. Doing it "
    "again changes nothing that is done."
)
_SOME = (
    "Those that match every filter of the body, or all with `all`. Ends after about "
    f"{ACTION_SECONDS:g} s; then `next_cursor` is there, and the same body with it as `cursor` "
    "goes on. "
)
_LETTER_ID = Parameter(
    "id",
    "path",
    "The dead letter's id.",
    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    required=True,
)


def _filter(name: str, description: str, schema: dict[str, Any]) -> Parameter:
    return Parameter(name, "query", description, schema)


_FILTERS = (
    _filter(
        "reason",
        "Text that the reason holds, in upper or lower case.",
        {
            "type": "string",
            "minLength": 1,
            "maxLength": REASON_CHARACTERS_MAX,
            "pattern": r"^[^\x00]*$",
        },
    ),
    _filter(
        "stage",
        "Where it was condemned.",
        {"type": "string", "enum": ["decode", "persist", "index"]},
    ),
    _filter("order_id", "Of this order.", {"type": "string", "format": "uuid"}),
    _filter("unit_id", "Of this bulk.", {"type": "string", "format": "uuid"}),
    _filter(
        "since",
        "Tried in vain at this moment or later.",
        {"type": "string", "format": "date-time"},
    ),
    _filter("until", "And before this one.", {"type": "string", "format": "date-time"}),
)

LIST = Operation(
    "listDeadLetters",
    "admin",
    "List dead letters, the latest first",
    "Orders that can never be persisted or indexed, with the reason. The first page also counts "
    "them by stage and reason. Follow `next` until it is absent.",
    {
        200: Answer(
            "A page.",
            Content(
                JSON,
                s.DeadLetterPageOut,
                {
                    "letters": [_LETTER],
                    "total": 1,
                    "groups": [
                        {"stage": "persist", "reason": _REASON, "letters": 1, "last_at": MOMENT}
                    ],
                },
            ),
        )
    },
    READ_PROBLEMS,
    parameters=(
        *_FILTERS,
        _filter(
            "cursor",
            "`next_cursor` of the page before.",
            {"type": "string", "pattern": "^[0-9]{1,18}$"},
        ),
        _filter(
            "limit",
            f"Letters a page; more than {PAGE_LETTERS_MAX} is taken as that.",
            {"type": "integer", "minimum": 1, "default": PAGE_LETTERS},
        ),
    ),
)
READ = Operation(
    "readDeadLetter",
    "admin",
    "Read a dead letter",
    "With its payload, as it came.",
    {
        200: Answer(
            "The dead letter.",
            Content(
                JSON,
                s.WholeDeadLetterOut,
                {
                    **_LETTER,
                    "payload": '{"accepted_at":1769860800000000,"order":{}}',
                    "payload_base64": None,
                },
            ),
        )
    },
    (p.MALFORMED, p.NOT_FOUND, p.UNAVAILABLE),
    parameters=(_LETTER_ID,),
)
REPLAY = Operation(
    "replayDeadLetter",
    "admin",
    "Replay a dead letter",
    f"Tries to persist, or to index, the order again. {_UNIT}What fails again is kept, with one "
    f"more attempt and the reason of now. {_AGAIN}",
    {200: Answer("What became of it.", Content(JSON, s.ActionOut, _PERSISTED))},
    (p.MALFORMED, p.NOT_FOUND, *WRITE_PROBLEMS),
    problem_type=s.ActionProblem,
    parameters=(_LETTER_ID,),
)
DISCARD = Operation(
    "discardDeadLetter",
    "admin",
    "Discard a dead letter",
    "From then on its order is 404, if it is not persisted and no other letter stands for it. "
    f"{_UNIT}What the cache still has as "
    f"not yet persisted is kept. {_AGAIN}",
    {200: Answer("What became of it.", Content(JSON, s.ActionOut, _DISCARDED))},
    (p.MALFORMED, p.NOT_FOUND, *WRITE_PROBLEMS),
    problem_type=s.ActionProblem,
    parameters=(_LETTER_ID,),
)
REPLAY_SOME = Operation(
    "replayDeadLetters",
    "admin",
    "Replay all dead letters that match",
    f"{_SOME}{_UNIT}{_AGAIN}",
    {200: Answer("What became of them.", Content(JSON, s.ActionOut, _PERSISTED))},
    (*BODY_PROBLEMS, p.INVALID, *WRITE_PROBLEMS),
    problem_type=s.ActionProblem,
    request=Content(JSON, s.DeadLetterChoiceIn, {"stage": "persist", "reason": "overflow"}),
)
DISCARD_SOME = Operation(
    "discardDeadLetters",
    "admin",
    "Discard all dead letters that match",
    f"{_SOME}{_UNIT}{_AGAIN}",
    {200: Answer("What became of them.", Content(JSON, s.ActionOut, _DISCARDED))},
    (*BODY_PROBLEMS, p.INVALID, *WRITE_PROBLEMS),
    problem_type=s.ActionProblem,
    request=Content(JSON, s.DeadLetterChoiceIn, {"stage": "persist", "reason": "overflow"}),
)
