"""What is published about the routes of the service itself."""

from collections.abc import Iterable
from typing import Any

from polyglot_persistence.api.service import schemas as s
from polyglot_persistence.api.service.pages import ASSETS, PARTS
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
    "Does not ask any store.",
    Answer("It does.", s.LiveOut, {"status": "alive"}),
)
READY = Operation(
    "ready",
    "service",
    "Whether orders can be accepted",
    "One store down is a degraded service, not an outage. The state of every store is only for "
    "clients with the scope `admin`.",
    Answer("They can.", s.ReadyOut),
    others=(Answer("They cannot, or the process is about to end.", s.ReadyOut, status=503),),
)
OPENAPI = Operation(
    "openapi",
    "service",
    "This description",
    "OpenAPI 3.1.",
    Answer("The description.", dict[str, Any]),
)


def _page(name: str, summary: str, description: str) -> Operation:
    return Operation(name, "service", summary, description, Answer("The page.", media_type=HTML))


def _part(
    name: str, summary: str, description: str, variable: str, names: Iterable[str]
) -> Operation:
    schema = {"type": "string", "enum": list(names)}
    return Operation(
        name,
        "service",
        summary,
        description,
        Answer("The part.", headers=("ETag",), media_type="*/*"),
        (p.NO_ROUTE,),
        (Parameter(variable, "path", "Its name.", schema, required=True),),
        others=(
            Answer(
                "Unchanged: `If-None-Match` names its tag.",
                headers=("ETag",),
                media_type="",
                status=304,
            ),
        ),
    )


DOCS = _page("docs", "This description as a page", "Loads nothing from other servers.")
DOCS_ASSET = _part("docsAsset", "A part of the page", "Script or style sheet.", "asset", ASSETS)
PROBLEMS = _page(
    "problems",
    "What each kind of problem means",
    "The page that the `type` of a problem points to.",
)
PAGE = _page(
    "page",
    "The live page",
    "Orders in progress, rates and lag, the stores, search, sales and dead letters.",
)
PAGE_PART = _part(
    "pagePart", "A part of the live page", "Script, style sheet or icon.", "part", PARTS
)
LIVE_FIGURES = Operation(
    "liveFigures",
    "reports",
    "Rates, lag and health as they change",
    "Server-sent events. `figures`: an array of `FiguresOut`, oldest first; the first event has "
    "the last minutes, the others follow about every second. `health`: the answer of "
    "`/health/ready` with the stores that are up, whenever it changes. The stores are asked once "
    "for all streams. "
    "A stream ends when its API key is revoked.",
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
