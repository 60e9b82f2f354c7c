"""What is published about the routes of the service itself."""

from typing import Any

from polyglot_persistence.api.service import schemas as s
from polyglot_persistence.api.service.dashboard.page import PARTS
from polyglot_persistence.api.service.handlers import ASSETS
from polyglot_persistence.api.web import problems as p
from polyglot_persistence.api.web.descriptions import (
    HTML,
    READ_PROBLEMS,
    TEXT,
    Answer,
    Operation,
    Parameter,
)

METRICS = Operation(
    "metrics",
    "service",
    "Metrics for Prometheus",
    "In the text format.",
    Answer("The metrics.", media_type=TEXT),
)
LIVE = Operation(
    "live",
    "service",
    "Whether the process runs",
    "Asks no store.",
    Answer("It does.", s.LiveOut, {"status": "alive"}),
)
READY = Operation(
    "ready",
    "service",
    "Whether orders can be accepted",
    "One store down is a degraded service, not an outage. The state of every store is only for "
    "clients with the scope `admin` and on the server's own machine.",
    Answer("They can.", s.ReadyOut),
    others=(Answer("They cannot.", s.ReadyOut, status=503),),
)
OPENAPI = Operation(
    "openapi",
    "service",
    "This description",
    "OpenAPI 3.1.",
    Answer("The description.", dict[str, Any]),
)
DOCS = Operation(
    "docs",
    "service",
    "This description as a page",
    "Served without anything from elsewhere.",
    Answer("The page.", media_type=HTML),
)
DOCS_ASSET = Operation(
    "docsAsset",
    "service",
    "A part of the page",
    "Script or style sheet.",
    Answer("The part.", headers=("ETag",), media_type="*/*"),
    (p.NO_ROUTE,),
    (Parameter("asset", "path", "Its name.", {"type": "string", "enum": list(ASSETS)}, True),),
    others=(
        Answer("It is what `If-None-Match` names.", media_type="", headers=("ETag",), status=304),
    ),
)
PROBLEMS = Operation(
    "problems",
    "service",
    "What each kind of problem means",
    "The page that the `type` of a problem points to.",
    Answer("The page.", media_type=HTML),
)
PAGE = Operation(
    "page",
    "service",
    "The live page",
    "Orders on their way, rates and lag, the stores, search, sales and dead letters.",
    Answer("The page.", media_type=HTML),
)
PAGE_PART = Operation(
    "pagePart",
    "service",
    "A part of the live page",
    "Script, style sheet or icon.",
    Answer("The part.", headers=("ETag",), media_type="*/*"),
    (p.NO_ROUTE,),
    (Parameter("part", "path", "Its name.", {"type": "string", "enum": list(PARTS)}, True),),
    others=(
        Answer("It is what `If-None-Match` names.", media_type="", headers=("ETag",), status=304),
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
    Answer("The events.", s.FiguresOut, media_type="text/event-stream"),
    READ_PROBLEMS,
    (
        Parameter(
            "Last-Event-ID",
            "header",
            "Only figures after the event with this id.",
            {"type": "string", "pattern": "^[0-9]{1,16}$"},
        ),
    ),
)
