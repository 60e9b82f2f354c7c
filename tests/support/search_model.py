"""What a search has to answer, by looking at every order: slow, and plain enough to be believed.

It shares with the adapters how text becomes words (tested on its own) and nothing else.
"""

import functools
from collections.abc import Sequence
from uuid import UUID

from polyglot_persistence.domain.order import Order
from polyglot_persistence.domain.text import QueryWord, parse_query, stem, words


def expected(orders: Sequence[Order], query: str) -> list[UUID]:
    """Return the ids of all orders that match, best first."""
    parsed = parse_query(query)
    ranked = []
    for order in orders:
        tiers = [_tier(word, order.product_name) for word in parsed]
        if tiers and all(tiers):
            typos, exact = tiers.count(1), tiers.count(3)
            brevity = -min(len(words(order.product_name)), 15)
            ranked.append(((-typos, exact, brevity, order.created_at, order.id), order.id))
    return [order_id for _, order_id in sorted(ranked, reverse=True)]


@functools.cache
def _tier(word: QueryWord, name: str) -> int:
    """Return 3 for an exact match, 2 for a prefix, 1 for a typo, 0 for none."""
    own = words(name)
    if any(stem(one) == word.stem for one in own):
        return 3
    if any(one.startswith(word.prefixes) for one in own):
        return 2
    return int(any(edits(stem(one), word.stem) <= word.typos_max for one in own))


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
