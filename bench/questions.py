"""What is asked of a shop's orders: searches, names as they are typed, sales.

Invariant: the same names give the same questions, in the same order.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from bench.orders import search, words_of

TYPISTS = 10
TYPED_CHARACTERS_MIN = 2
TYPED_CHARACTERS_MAX = 12
"""By then what is meant stands among the suggestions."""


def searches(names: Iterable[str]) -> list[str]:
    """Return searches, no two the same: each word of the names, and two words of one name."""
    texts: dict[str, None] = {}  # a set would give another order each time
    for name in names:
        words = words_of(name.lower())
        for pair in (*((word,) for word in words), *itertools.permutations(words, 2)):
            texts[" ".join(pair)] = None
    found = [search(text) for text in texts]
    random.Random(5).shuffle(found)
    return found


def typed(orders: Mapping[str, int], keys: int) -> list[str]:
    """Return what is asked while `TYPISTS` people type at once, so many keys together.

    They type names as often as these were ordered, from the first word on or from a later one.
    """
    chance = random.Random(6)
    typists = [_typist(orders, chance) for _ in range(TYPISTS)]
    texts = (next(typist) for typist in itertools.cycle(typists))
    return [_completion(text) for text in itertools.islice(texts, keys)]


def first_letters(names: Iterable[str]) -> list[str]:
    """Return what is asked by those who have typed one letter, each letter once."""
    return [
        _completion(letter)
        for letter in sorted({word[0] for name in names for word in words_of(name.lower())})
    ]


def _completion(text: str) -> str:
    return f"/api/search/suggest?q={quote(text)}"


def _typist(orders: Mapping[str, int], chance: random.Random) -> Iterator[str]:
    names, bounds = list(orders), list(itertools.accumulate(orders.values()))
    while True:
        (name,) = chance.choices(names, cum_weights=bounds)
        beginnings = [name.index(word) for word in words_of(name)]
        text = name[chance.choice(beginnings or [0]) :].lower()
        for length in range(TYPED_CHARACTERS_MIN, min(len(text), TYPED_CHARACTERS_MAX) + 1):
            yield text[:length]


def sales(first: str, end: str, product: str | None = None) -> str:
    """Return the path of the sales by day, or of one product by month."""
    path = f"/api/sales?from={first}&to={end}"
    return f"{path}&by=day" if product is None else f"{path}&by=month&product={quote(product)}"
