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
    "A word matches exactly, as a prefix, inside a word, or with a typo, in that order; every word "
    "must match. Words match written together or apart (`wi-fi`, `wifi`) and with or without "
    "umlauts (`m\u00fcsli`, `muesli`); symbols count (`C++`, `C#`). In scripts without spaces, "
    "names with the characters of `q` side by side come first. Without `q`, `sort` or a bound is "
    "required. Follow `next` (also in the `Link` header) until it is absent; no order is repeated "
    "or skipped because new ones arrive. "
    "503: the index is missing, incomplete or unavailable; a search never returns partial results.",
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
    "The most ordered names that match every word, exactly or as a prefix; only if "
    "there is none, names that match inside a word or with a typo.",
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
