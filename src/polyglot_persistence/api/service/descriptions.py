"""What is published about the routes of the service itself."""

from typing import Any

from polyglot_persistence.api.service import schemas as s
from polyglot_persistence.api.service.dashboard.page import PARTS
from polyglot_persistence.api.service.handlers import ASSETS
from polyglot_persistence.api.web import problems as p
from polyglot_persistence.api.web.descriptions import (
    HTML,
    JSON,
    READ_PROBLEMS,
    TEXT,
    Answer,
    Content,
    Operation,
    Parameter,
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
    READ_PROBLEMS,
    parameters=(
        Parameter(
            "Last-Event-ID",
            "header",
            "Only figures after the event with this id.",
            {"type": "string", "pattern": "^[0-9]{1,16}$"},
        ),
    ),
)
