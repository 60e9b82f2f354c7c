"""What is published about the routes of dead letters."""

from typing import Any

from polyglot_persistence.api.dead_letters import schemas as s
from polyglot_persistence.api.dead_letters.handlers import ACTION_SECONDS
from polyglot_persistence.api.web import problems as p
from polyglot_persistence.api.web.descriptions import (
    BODY_PROBLEMS,
    MOMENT,
    ORDER_ID,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    Answer,
    Body,
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
    "If a letter belongs to a bulk, the whole bulk is handled, and nothing else with its "
    "idempotency key. "
)
_AGAIN = (
    "503: nothing was done. 504: a store failed during the action; `done` counts what is certain. "
    "Repeating it changes nothing that is done."
)
_SOME = (
    "Those that match every filter of the body, or all with `all`. Stops after about "
    f"{ACTION_SECONDS:g} s; then send the same body again with `next_cursor` as `cursor`. "
)
_LETTER_ID = Parameter(
    "id",
    "path",
    "The dead letter's id.",
    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    required=True,
)


LIST = Operation(
    "listDeadLetters",
    "admin",
    "List dead letters, the latest first",
    "Orders that can never be persisted or indexed, with the reason. The first page also counts "
    "them by stage and reason. Follow `next` until it is absent.",
    Answer(
        "A page.",
        s.DeadLetterPageOut,
        {
            "letters": [_LETTER],
            "total": 1,
            "groups": [{"stage": "persist", "reason": _REASON, "letters": 1, "last_at": MOMENT}],
        },
    ),
    READ_PROBLEMS,
    s.LetterPageParameters.described,
)
READ = Operation(
    "readDeadLetter",
    "admin",
    "Read a dead letter",
    "With its original payload.",
    Answer(
        "The dead letter.",
        s.WholeDeadLetterOut,
        {
            **_LETTER,
            "payload": '{"accepted_at":1769860800000000,"order":{}}',
            "payload_base64": None,
        },
    ),
    (p.MALFORMED, p.NOT_FOUND, p.UNAVAILABLE),
    (_LETTER_ID,),
)


def _action(name: str, summary: str, description: str, became: dict[str, Any]) -> Operation:
    """Return the description of an action on one dead letter, or on those that a body chooses."""
    is_on_one = not name.endswith("s")
    about = Operation(
        name,
        "admin",
        summary,
        description + _AGAIN,
        Answer("The outcome.", s.ActionOut, became),
        problem_type=s.ActionProblem,
    )
    if is_on_one:
        problems = (p.MALFORMED, p.NOT_FOUND, *WRITE_PROBLEMS)
        return about._replace(problems=problems, parameters=(_LETTER_ID,))
    chosen = Body(s.DeadLetterChoiceIn, {"stage": "persist", "reason": "overflow"})
    return about._replace(problems=(*BODY_PROBLEMS, p.INVALID, *WRITE_PROBLEMS), request=chosen)


REPLAY = _action(
    "replayDeadLetter",
    "Replay a dead letter",
    f"Persists or indexes the order again. {_UNIT}A letter that fails again is kept, "
    "with one more attempt and the new reason. ",
    _PERSISTED,
)
DISCARD = _action(
    "discardDeadLetter",
    "Discard a dead letter",
    "Then its order is 404, unless it is persisted or has another dead letter. "
    f"{_UNIT}An order that the cache still holds as not yet persisted is kept. ",
    _DISCARDED,
)
REPLAY_SOME = _action(
    "replayDeadLetters", "Replay all dead letters that match", _SOME + _UNIT, _PERSISTED
)
DISCARD_SOME = _action(
    "discardDeadLetters", "Discard all dead letters that match", _SOME + _UNIT, _DISCARDED
)
