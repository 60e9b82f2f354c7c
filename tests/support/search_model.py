"""What a search has to answer, by looking at every order: slow, and plain enough to be believed.

It shares with the adapters how a name and a query become terms (tested on its own), nothing else.
"""

import functools
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from polyglot_persistence.domain.order import Order, to_micros
from polyglot_persistence.domain.search.query import Bounds, Sort
from polyglot_persistence.domain.search.terms import QueryWord, name_terms, parse_query

EVERYTHING = Bounds()


def expected(
    orders: Sequence[Order], query: str, sort: Sort = Sort.RELEVANCE, bounds: Bounds = EVERYTHING
) -> list[UUID]:
    """Return the ids of all orders that match, first the first."""
    parsed = parse_query(query)
    ranked = []
    for order in orders:
        tiers = [_tier(word, order.product_name) for word in parsed]
        if tiers and all(tiers) and _within(order, bounds):
            typos, parts, exact = (tiers.count(tier) for tier in (1, 2, 4))
            keys: dict[Sort, tuple[Any, ...]] = {
                Sort.RELEVANCE: (-typos, -parts, exact, order.created_at),
                Sort.NEWEST: (order.created_at,),
                Sort.AMOUNT: (order.amount, order.created_at),
            }
            ranked.append(((*keys[sort], order.id), order.id))
    return [order_id for _, order_id in sorted(ranked, reverse=True)]


def _within(order: Order, bounds: Bounds) -> bool:
    micros, cents = to_micros(order.created_at), int(order.amount * 100)
    return (
        (bounds.micros_min is None or bounds.micros_min <= micros)
        and (bounds.micros_max is None or micros <= bounds.micros_max)
        and (bounds.cents_min is None or bounds.cents_min <= cents)
        and (bounds.cents_max is None or cents <= bounds.cents_max)
    )


@functools.cache
def _tier(word: QueryWord, name: str) -> int:
    """Return 4 for an exact match, 3 for a beginning, 2 for a part, 1 for a typo, 0 for none."""
    own = name_terms(name)
    if set(own.exact) & set(word.exact):
        return 4
    if any(one.startswith(word.prefixes) for one in own.words):
        return 3
    if any(one.startswith(word.parts) for one in own.parts):
        return 2
    return int(any(edits(one, word.exact[0]) <= word.typos_max for one in own.exact))


@functools.cache  # names repeat their words
def edits(left: str, right: str) -> int:
    """Return the edit distance with swaps of neighbours (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        above, row = row, [i]
        for j, b in enumerate(right, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and b == left[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before = above
    return row[-1]
