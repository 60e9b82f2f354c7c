"""What is published about each route: parameters, bodies, and every status that it can give."""

from typing import Any, NamedTuple

from polyglot_persistence.api.orders.handlers import PAGE_ORDERS, PAGE_ORDERS_MAX
from polyglot_persistence.api.orders.importing import FIRST_LINE_MAX
from polyglot_persistence.api.service.dashboard.page import PARTS
from polyglot_persistence.api.service.handlers import ASSETS
from polyglot_persistence.api.web import problems as p
from polyglot_persistence.api.web import schemas as s
from polyglot_persistence.api.web.problems import Kind, Problem
from polyglot_persistence.api.web.request_headers import KEY_CHARACTERS_MAX, NDJSON_TYPES

JSON = "application/json"
NDJSON = "application/x-ndjson"
HTML = "text/html"
TEXT = "text/plain"

_ID = "0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04"
_ID_2 = "0199f0c1-7a42-7c31-9d0e-4a6c9d3b2f15"
_MOMENT = "2026-01-31T12:00:00Z"
_ORDER = {"product_name": "Laptop", "amount": 1299.99}
_STORED = {"id": _ID, **_ORDER, "created_at": _MOMENT}


class Parameter(NamedTuple):
    """A parameter in path, query or header."""

    name: str
    place: str
    description: str
    schema: dict[str, Any]
    required: bool = False


class Content(NamedTuple):
    """A body: its content type, the type that stands for its schema, and an example.

    A tuple of types means any of them.
    """

    media_type: str
    type: Any = None
    example: Any = None


class Answer(NamedTuple):
    """A status that is no problem."""

    description: str
    content: Content | None
    headers: tuple[str, ...] = ()
    alternative: Content | None = None
    """The same in another form, for whoever accepts it."""


class Operation(NamedTuple):
    """One route's description."""

    name: str
    tag: str
    summary: str
    description: str
    answers: dict[int, Answer]
    problems: tuple[Kind, ...] = ()
    problem_type: type[Problem] = Problem
    parameters: tuple[Parameter, ...] = ()
    request: Content | None = None


HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Location": ("Where the order is to be found.", {"type": "string", "format": "uri-reference"}),
    "X-Cache": (
        "HIT if the cache had the order, MISS if PostgreSQL was asked.",
        {"type": "string", "enum": ["HIT", "MISS"]},
    ),
    "Retry-After": ("Seconds after which to ask again.", {"type": "integer", "minimum": 0}),
    "WWW-Authenticate": ("How to say who one is (RFC 6750).", {"type": "string"}),
    "RateLimit-Policy": ("The client's rate: `q` requests in `w` seconds.", {"type": "string"}),
    "RateLimit": (
        "Requests that the client has left now (`r`), and seconds until it has all again (`t`).",
        {"type": "string"},
    ),
    "Preference-Applied": ("What of `Prefer` was heeded.", {"type": "string"}),
    "Idempotent-Replayed": (
        "Present if the order was there before.",
        {"type": "string", "enum": ["true"]},
    ),
    "X-As-Of": ("The moment as of which the answer is exact.", {"type": "string"}),
    "Link": ('The next page, with rel="next".', {"type": "string"}),
    "ETag": ("The content's tag.", {"type": "string"}),
}

_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Makes a retry safe: the same key and body give the same order, for as long as it exists. "
    f"A string in quotes or bare, 1 to {KEY_CHARACTERS_MAX} characters of printable ASCII. It is "
    "the client's own; clients without an API key share theirs, so make it random (a UUID).",
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
_BODY_PROBLEMS = (p.MALFORMED, p.TOO_SLOW, p.TOO_LARGE, p.UNSUPPORTED_MEDIA)
_COMMIT_PROBLEMS = (p.UNAVAILABLE, p.UNKNOWN_OUTCOME)
_ACCEPTED_HEADERS = ("Location", "Preference-Applied", "Idempotent-Replayed")
_BULK_HEADERS = ("Preference-Applied", "Idempotent-Replayed")


CREATE_ORDER = Operation(
    "createOrder",
    "orders",
    "Accept an order",
    "Durable before the answer; persisted, searchable and counted soon after. 503: refused, this "
    "request stored nothing. 504: the outcome is not known; retry with the same key. A 503 to such "
    "a retry says nothing about the attempt that was answered 504: go on retrying.",
    {
        201: Answer(
            "Accepted, and in PostgreSQL already (only with `Prefer: wait`).",
            Content(JSON, s.AcceptedOut, {"order_id": _ID, "status": "persisted"}),
            _ACCEPTED_HEADERS,
        ),
        202: Answer(
            "Accepted: durable, and readable at once.",
            Content(JSON, s.AcceptedOut, {"order_id": _ID, "status": "processing"}),
            _ACCEPTED_HEADERS,
        ),
    },
    (*_BODY_PROBLEMS, p.INVALID, p.CONFLICT, *_COMMIT_PROBLEMS),
    parameters=(_KEY, _PREFER),
    request=Content(JSON, s.OrderIn, _ORDER),
)
CREATE_BULK = Operation(
    "createBulk",
    "orders",
    "Accept several orders, all or nothing",
    f"1 to {s.ORDERS_PER_BULK_MAX:,} orders as one unit: one invalid order refuses all, and the "
    "bulk is persisted in one transaction. The form with `item_1` and `item_2` stores two orders "
    "over 100.00 and 50.00; with `item_2` being `ERROR` it is refused.",
    {
        201: Answer(
            "Accepted, and in PostgreSQL already (only with `Prefer: wait`).",
            Content(JSON, s.BulkAcceptedOut, {"order_ids": [_ID, _ID_2], "status": "persisted"}),
            _BULK_HEADERS,
        ),
        202: Answer(
            "Accepted; the ids stand in the order of the request.",
            Content(JSON, s.BulkAcceptedOut, {"order_ids": [_ID, _ID_2], "status": "processing"}),
            _BULK_HEADERS,
        ),
    },
    (*_BODY_PROBLEMS, p.INVALID, p.CONFLICT, *_COMMIT_PROBLEMS),
    parameters=(_KEY, _PREFER),
    request=Content(JSON, (s.BulkIn, s.PairIn), {"orders": [_ORDER, _ORDER]}),
)
IMPORT_ORDERS = Operation(
    "importOrders",
    "orders",
    "Import orders, one JSON object a line",
    "A stream of any length. Each line is an order of its own, may bring its `id` and "
    "`created_at`, and is accepted or reported by its number. A body with any rejected line ends "
    "in 422, though the others are stored. So many rejected lines in a row "
    "(`IMPORT_REJECTED_IN_A_ROW_MAX`) end it before its end. A byte order mark before a line is "
    "skipped. Other names of the content type are taken as well: "
    + ", ".join(NDJSON_TYPES[1:])
    + ". Lines with an `id`, and any lines "
    "of a request with an `Idempotency-Key`, change nothing when they are sent again. An `id` of "
    "version 8 needs the scope `admin`, unless it repeats a stored order. While orders "
    "are refused the import waits; if that takes too long, it ends in 503 with what was done, or "
    "in 504 if it is not known of some lines whether they are stored. To resume an import that has "
    "a key after 408, 503 or 504, send line `first_line_not_accepted` and the rest with the same "
    "key and that number as `first_line`. If there was no answer, send the whole body again with "
    "the same key; that works after any cut. If the first line stands for an order with other "
    "content, the whole body is refused with 422: its lines have other numbers than before.",
    {
        200: Answer(
            "Every line is stored; with `on_rejected=report`, every line was looked at.",
            Content(
                JSON,
                s.ImportOut,
                {
                    "accepted": 2,
                    "unchanged": 0,
                    "rejected": 1,
                    "errors": [{"line": 2, "detail": "/amount: must not be negative"}],
                    "errors_omitted": 0,
                },
            ),
        )
    },
    (p.MALFORMED, p.TOO_SLOW, p.UNSUPPORTED_MEDIA, p.CONFLICT, p.LINES_REJECTED, *_COMMIT_PROBLEMS),
    problem_type=p.ImportProblem,
    parameters=(
        _KEY,
        Parameter(
            "first_line",
            "query",
            "The number of the body's first line, from which all others count. A line ends with a "
            "line feed; blank lines count. With a key, a line's identity is its number.",
            {"type": "integer", "minimum": 1, "maximum": FIRST_LINE_MAX, "default": 1},
        ),
        Parameter(
            "on_rejected",
            "query",
            "`fail`: 422 if any line was rejected. `report`: 200 all the same, for a client that "
            "reads `rejected` and `errors`.",
            {"type": "string", "enum": ["fail", "report"], "default": "fail"},
        ),
    ),
    request=Content(
        NDJSON,
        s.ImportLineIn,
        '{"id": "0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04", "product_name": "Laptop", '
        '"amount": 1299.99, "created_at": "2026-01-31T12:00:00Z"}\n',
    ),
)
READ_ORDER = Operation(
    "readOrder",
    "orders",
    "Read an order",
    "404 is said only when it is certain; an acknowledged order is never answered with it.",
    {200: Answer("The order.", Content(JSON, s.OrderOut, _STORED), ("X-Cache",))},
    (p.MALFORMED, p.NOT_FOUND, p.UNAVAILABLE),
    parameters=(_ORDER_ID,),
)
LIST_ORDERS = Operation(
    "listOrders",
    "orders",
    "List persisted orders, newest first",
    "Follow `next` (also in the `Link` header) until it is absent.",
    {200: Answer("A page.", Content(JSON, s.OrderPageOut, {"orders": [_STORED]}), ("Link",))},
    (p.MALFORMED, p.UNAVAILABLE),
    parameters=(
        Parameter("cursor", "query", "`next_cursor` of the page before.", {"type": "string"}),
        Parameter(
            "limit",
            "query",
            f"Orders a page; more than {PAGE_ORDERS_MAX} is taken as that.",
            {"type": "integer", "minimum": 1, "default": PAGE_ORDERS},
        ),
    ),
)
ORDER_STATUS = Operation(
    "orderStatus",
    "orders",
    "See which stages an order has reached",
    "`Retry-After` is there until the order is searchable or dead-lettered.",
    {
        200: Answer(
            "The stages, with their times.",
            Content(
                JSON,
                s.OrderStatusOut,
                {
                    "order_id": _ID,
                    "status": "persisted",
                    "accepted_at": _MOMENT,
                    "persisted_at": _MOMENT,
                    "searchable_at": None,
                    "dead_lettered_at": None,
                    "reason": None,
                },
            ),
            ("Retry-After",),
        )
    },
    (p.MALFORMED, p.NOT_FOUND, p.UNAVAILABLE),
    parameters=(_ORDER_ID,),
)
METRICS = Operation(
    "metrics",
    "service",
    "Metrics for Prometheus",
    "In the text format.",
    {200: Answer("The metrics.", Content(TEXT))},
)
LIVE = Operation(
    "live",
    "service",
    "Whether the process runs",
    "Asks no store.",
    {200: Answer("It does.", Content(JSON, s.LiveOut, {"status": "alive"}))},
)
READY = Operation(
    "ready",
    "service",
    "Whether orders can be accepted",
    "One store down is a degraded service, not an outage. The state of every store is only for "
    "clients with the scope `admin` and on the server's own machine.",
    {
        200: Answer("They can.", Content(JSON, s.ReadyOut)),
        503: Answer("They cannot.", Content(JSON, s.ReadyOut)),
    },
)
OPENAPI = Operation(
    "openapi",
    "service",
    "This description",
    "OpenAPI 3.1.",
    {200: Answer("The description.", Content(JSON, dict[str, Any]))},
)
DOCS = Operation(
    "docs",
    "service",
    "This description as a page",
    "Served without anything from elsewhere.",
    {200: Answer("The page.", Content(HTML))},
)
DOCS_ASSET = Operation(
    "docsAsset",
    "service",
    "A part of the page",
    "Script or style sheet.",
    {
        200: Answer("The part.", Content("*/*"), ("ETag",)),
        304: Answer("It is what `If-None-Match` names.", None, ("ETag",)),
    },
    (p.NO_ROUTE,),
    parameters=(
        Parameter("asset", "path", "Its name.", {"type": "string", "enum": list(ASSETS)}, True),
    ),
)
PROBLEMS = Operation(
    "problems",
    "service",
    "What each kind of problem means",
    "The page that the `type` of a problem points to.",
    {200: Answer("The page.", Content(HTML))},
)
PAGE = Operation(
    "page",
    "service",
    "The live page",
    "Orders on their way, rates and lag, the stores, search, sales and dead letters.",
    {200: Answer("The page.", Content(HTML))},
)
PAGE_PART = Operation(
    "pagePart",
    "service",
    "A part of the live page",
    "Script, style sheet or icon.",
    {
        200: Answer("The part.", Content("*/*"), ("ETag",)),
        304: Answer("It is what `If-None-Match` names.", None, ("ETag",)),
    },
    (p.NO_ROUTE,),
    parameters=(
        Parameter("part", "path", "Its name.", {"type": "string", "enum": list(PARTS)}, True),
    ),
)
LIVE_FIGURES = Operation(
    "liveFigures",
    "reports",
    "Rates, lag and health as they change",
    "Server-sent events. `figures`: an array, the oldest first, of "
    "`FiguresOut`; at first what was kept of the last minutes, then one about every second. "
    "`health`: what `/health/ready` says, whenever it changes, and which stores are up. The stores "
    "are asked once for all who listen. A stream ends once its API key is revoked.",
    {200: Answer("The events.", Content("text/event-stream", s.FiguresOut))},
    (p.MALFORMED, p.UNAVAILABLE),
    parameters=(
        Parameter(
            "Last-Event-ID",
            "header",
            "Only figures after the event with this id.",
            {"type": "string", "pattern": "^[0-9]{1,16}$"},
        ),
    ),
)
