"""What is published about the routes of orders."""

from polyglot_persistence.api.orders import schemas as s
from polyglot_persistence.api.web import problems as p
from polyglot_persistence.api.web.descriptions import (
    BODY_PROBLEMS,
    MOMENT,
    NDJSON,
    ORDER_ID,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    Answer,
    Body,
    Operation,
    Parameter,
)
from polyglot_persistence.api.web.request_headers import KEY_CHARACTERS_MAX, NDJSON_TYPES

_ID_2 = "0199f0c1-7a42-7c31-9d0e-4a6c9d3b2f15"
_ORDER = {"product_name": "Laptop", "amount": 1299.99}
_STORED = {"id": ORDER_ID, **_ORDER, "created_at": MOMENT}

_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Makes a retry safe: the same key and body give the same order, for as long as it exists. "
    f"A string in quotes or bare, 1 to {KEY_CHARACTERS_MAX} characters of printable ASCII. Keys "
    "are separate for each API key; clients without one share them, so make it random (a UUID).",
    {
        "type": "string",
        "pattern": (
            rf"^([!#-~][!-~]{{0,{KEY_CHARACTERS_MAX - 1}}}"
            rf'|"[ !#-\[\]-~]{{1,{KEY_CHARACTERS_MAX}}}")$'
        ),
        "examples": ['"8e03978e-40d5-43dd-bc93-6894a57f9324"'],
    },
)
_PREFER = Parameter(
    "Prefer",
    "header",
    "`wait=N`: answer 201 once the order is in PostgreSQL, or 202 after N seconds (RFC 7240).",
    {"type": "string", "examples": ["wait=5"]},
)
_ORDER_ID = Parameter("id", "path", "The order's id.", {"type": "string", "format": "uuid"}, True)
_ACCEPTED = Answer(
    "Accepted: durable, and readable at once.",
    s.AcceptedOut,
    {"order_id": ORDER_ID, "status": "processing"},
    headers=("Location", "Preference-Applied", "Idempotent-Replayed"),
    status=202,
)
_BULK_ACCEPTED = Answer(
    "Accepted; the ids are in the order of the request.",
    s.BulkAcceptedOut,
    {"order_ids": [ORDER_ID, _ID_2], "status": "processing"},
    headers=("Preference-Applied", "Idempotent-Replayed"),
    status=202,
)


def _persisted(accepted: Answer) -> Answer:
    """Return the answer of a request that waited until its orders were persisted."""
    return accepted._replace(
        description="Accepted, and already in PostgreSQL (only with `Prefer: wait`).",
        example={**accepted.example, "status": "persisted"},
        status=201,
    )


CREATE_ORDER = Operation(
    "createOrder",
    "orders",
    "Accept an order",
    "Durable before the answer; persisted, searchable and counted soon after. 503: refused, this "
    "request stored nothing. 504: the outcome is unknown; retry with the same key. A 503 to that "
    "retry does not show whether the attempt answered with 504 was stored: go on retrying.",
    _ACCEPTED,
    (*BODY_PROBLEMS, p.INVALID, p.CONFLICT, *WRITE_PROBLEMS),
    (_KEY, _PREFER),
    request=Body(s.OrderIn, _ORDER),
    others=(_persisted(_ACCEPTED),),
)
CREATE_BULK = Operation(
    "createBulk",
    "orders",
    "Accept several orders, all or nothing",
    f"1 to {s.ORDERS_PER_BULK_MAX:,} orders as one unit: one invalid order refuses all, and the "
    "bulk is persisted in one transaction. The form with `item_1` and `item_2` stores two orders "
    "over 100.00 and 50.00; if `item_2` is `ERROR`, it is refused.",
    _BULK_ACCEPTED,
    (*BODY_PROBLEMS, p.INVALID, p.CONFLICT, *WRITE_PROBLEMS),
    (_KEY, _PREFER),
    request=Body((s.BulkIn, s.PairIn), {"orders": [_ORDER, _ORDER]}),
    others=(_persisted(_BULK_ACCEPTED),),
)
IMPORT_ORDERS = Operation(
    "importOrders",
    "orders",
    "Import orders, one JSON object a line",
    "A stream of any length. Each line is a separate order and may contain its `id` and "
    "`created_at`; it is accepted, or rejected with its number. If any line is rejected, the "
    "answer is 422, though the others are stored. `IMPORT_REJECTED_IN_A_ROW_MAX` rejected lines "
    "in a row end the import early. A byte order mark before a line is skipped. Other names of "
    "the content type are accepted as well: "
    + ", ".join(NDJSON_TYPES[1:])
    + ". Lines with an `id`, and all lines of a request with an `Idempotency-Key`, change nothing "
    "when they are sent again. An `id` of version 8 needs the scope `admin`, unless it repeats a "
    "stored order. While orders are refused, the import waits. If that takes too long, the answer "
    "is 503 with what was done, or 504 if it is unknown whether some lines are stored. To resume "
    "an import with a key after 408, 503 or 504, send line `first_line_not_accepted` and the rest "
    "with the same key and that number as `first_line`. If there was no answer, send the whole "
    "body again with the same key; that works after any interruption. If the first line repeats "
    "the number of an order with other content, the whole body is refused with 422: its lines have "
    "other numbers than before.",
    Answer(
        "Every line is stored; with `on_rejected=report`, every line was read.",
        s.ImportOut,
        {
            "accepted": 2,
            "unchanged": 0,
            "rejected": 1,
            "errors": [{"line": 2, "detail": "/amount: must not be negative"}],
            "errors_omitted": 0,
        },
    ),
    (p.MALFORMED, p.TOO_SLOW, p.UNSUPPORTED_MEDIA, p.CONFLICT, p.LINES_REJECTED, *WRITE_PROBLEMS),
    (_KEY, *s.ImportParameters.described),
    request=Body(
        s.ImportLineIn,
        '{"id": "0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04", "product_name": "Laptop", '
        '"amount": 1299.99, "created_at": "2026-01-31T12:00:00Z"}\n',
        NDJSON,
    ),
    problem_type=s.ImportProblem,
)
READ_ORDER = Operation(
    "readOrder",
    "orders",
    "Read an order",
    "404 is certain: no acknowledged order is answered with it, unless an operator discarded it.",
    Answer("The order.", s.OrderOut, _STORED, headers=("X-Cache",)),
    (p.MALFORMED, p.NOT_FOUND, p.UNAVAILABLE),
    (_ORDER_ID,),
)
LIST_ORDERS = Operation(
    "listOrders",
    "orders",
    "List persisted orders, newest first",
    "Follow `next` (also in the `Link` header) until it is absent.",
    Answer("A page.", s.OrderPageOut, {"orders": [_STORED]}, headers=("Link",)),
    READ_PROBLEMS,
    s.OrderPageParameters.described,
)
ORDER_STATUS = Operation(
    "orderStatus",
    "orders",
    "See which stages an order has reached",
    "`Retry-After` is present until the order is searchable or dead-lettered.",
    Answer(
        "The stages, with their times.",
        s.OrderStatusOut,
        {
            "order_id": ORDER_ID,
            "status": "persisted",
            "accepted_at": MOMENT,
            "persisted_at": MOMENT,
            "searchable_at": None,
            "dead_lettered_at": None,
            "reason": None,
        },
        headers=("Retry-After",),
    ),
    (p.MALFORMED, p.NOT_FOUND, p.UNAVAILABLE),
    (_ORDER_ID,),
)
