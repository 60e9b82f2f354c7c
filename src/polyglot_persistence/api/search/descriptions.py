"""What is published about the routes of search."""

from polyglot_persistence.api.search import schemas as s
from polyglot_persistence.api.web.descriptions import (
    MOMENT,
    ORDER_ID,
    READ_PROBLEMS,
    Answer,
    Operation,
)

_HIT = {
    "id": ORDER_ID,
    "product_name": "Laptop",
    "highlighted": "<mark>Laptop</mark>",
    "amount": 1299.99,
    "created_at": MOMENT,
    "score": 1.0,
}


SEARCH = Operation(
    "search",
    "reports",
    "Search orders by product name, time and amount",
    "A word matches exactly, as a beginning, as a part of a word, or with a typo, in that order; "
    "every word has to match. Words find each other written together or apart (`wi-fi`, `wifi`) "
    "and with umlauts or without (`m\u00fcsli`, `muesli`); signs count (`C++`, `C#`). In scripts "
    "without spaces, names with the asked signs side by side come first. Without `q`, `sort` or a "
    "bound is needed. Follow `next` (also in the `Link` header) until it is absent; no "
    "order is shown twice or left out because others arrive meanwhile. "
    "503: the index is missing, incomplete or away; a search never finds only a part.",
    Answer(
        "The best matches.",
        s.SearchOut,
        {"total": 1, "total_is": "exact", "hits": [_HIT], "did_you_mean": None, "took_ms": 1.7},
        headers=("Link",),
    ),
    READ_PROBLEMS,
    s.SearchParameters.described,
)
SUGGEST = Operation(
    "suggest",
    "reports",
    "Complete a product name as it is typed",
    "The most ordered of the names that match every word, exactly or as a beginning; only if "
    "there is none, those that match as a part of a word or with a typo.",
    Answer(
        "The names.",
        s.SuggestionsOut,
        {
            "suggestions": [{"product_name": "Laptop", "highlighted": "<mark>Lap</mark>top"}],
            "took_ms": 0.9,
        },
    ),
    READ_PROBLEMS,
    s.SuggestParameters.described,
)
