"""What is published about the routes of search."""

from typing import Any

from polyglot_persistence.api.search import schemas as s
from polyglot_persistence.api.search.handlers import (
    HITS,
    HITS_MAX,
    QUERY_CHARACTERS_MAX,
    SUGGESTIONS,
    SUGGESTIONS_MAX,
)
from polyglot_persistence.api.web.descriptions import (
    JSON,
    MOMENT,
    ORDER_ID,
    READ_PROBLEMS,
    Answer,
    Content,
    Operation,
    Parameter,
)
from polyglot_persistence.domain.search.query import DAYS_MAX, NAMES_MAX, Sort

_HIT = {
    "id": ORDER_ID,
    "product_name": "Laptop",
    "highlighted": "<mark>Laptop</mark>",
    "amount": 1299.99,
    "created_at": MOMENT,
    "score": 1.0,
}


def _text(description: str, *, required: bool) -> Parameter:
    schema: dict[str, Any] = {
        "type": "string",
        "minLength": 1,
        "maxLength": QUERY_CHARACTERS_MAX,
        "pattern": r"\S",
        "examples": ["laptop"],
    }
    return Parameter("q", "query", description, schema, required)


def _moment(name: str, description: str) -> Parameter:
    return Parameter(name, "query", description, {"type": "string", "format": "date-time"})


def _amount(name: str, description: str) -> Parameter:
    schema = {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,2})?$", "examples": ["10.00"]}
    return Parameter(name, "query", description, schema)


SEARCH = Operation(
    "search",
    "reports",
    "Search orders by product name, time and amount",
    "A word matches exactly, as a beginning, as a part of a word, or with a typo, in that order; "
    "every word has to match. Words find each other written together or apart (`wi-fi`, `wifi`) "
    "and with umlauts or without (`m\u00fcsli`, `muesli`); signs count (`C++`, `C#`). Without `q`, "
    "`sort` or a bound is needed. Follow `next` (also in the `Link` header) until it is absent; no "
    "order is shown twice or left out because others arrive meanwhile. "
    "503: the index is missing, incomplete or away; a search never finds only a part.",
    {
        200: Answer(
            "The best matches.",
            Content(
                JSON,
                s.SearchOut,
                {
                    "total": 1,
                    "total_is": "exact",
                    "hits": [_HIT],
                    "did_you_mean": None,
                    "took_ms": 1.7,
                },
            ),
            ("Link",),
        )
    },
    READ_PROBLEMS,
    parameters=(
        _text("What to look for.", required=False),
        _moment("from", "Orders created then or later; a date is its beginning in UTC."),
        _moment("to", "Orders created before; a date is its beginning in UTC."),
        _amount("min", "Orders of this amount or more."),
        _amount("max", "Orders of this amount or less."),
        Parameter(
            "sort",
            "query",
            "What comes first. Default: relevance, and without `q` newest.",
            {"type": "string", "enum": [one.value for one in Sort]},
        ),
        Parameter(
            "facets",
            "query",
            "Count all that matches by price, by day (the latest "
            f"{DAYS_MAX}) and by name (the {NAMES_MAX} most ordered).",
            {"type": "boolean", "default": False},
        ),
        Parameter(
            "limit",
            "query",
            f"Most hits; more than {HITS_MAX} is taken as that.",
            {"type": "integer", "minimum": 1, "default": HITS},
        ),
        Parameter("cursor", "query", "`next_cursor` of the page before.", {"type": "string"}),
    ),
)
SUGGEST = Operation(
    "suggest",
    "reports",
    "Complete a product name as it is typed",
    "The most ordered of the names that match every word, exactly or as a beginning; only if "
    "there is none, those that match as a part of a word or with a typo.",
    {
        200: Answer(
            "The names.",
            Content(
                JSON,
                s.SuggestionsOut,
                {
                    "suggestions": [
                        {"product_name": "Laptop", "highlighted": "<mark>Lap</mark>top"}
                    ],
                    "took_ms": 0.9,
                },
            ),
        )
    },
    READ_PROBLEMS,
    parameters=(
        _text("What is typed so far.", required=True),
        Parameter(
            "limit",
            "query",
            f"Most names; more than {SUGGESTIONS_MAX} is taken as that.",
            {"type": "integer", "minimum": 1, "default": SUGGESTIONS},
        ),
    ),
)
