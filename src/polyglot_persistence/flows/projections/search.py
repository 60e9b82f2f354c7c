"""Full-text search over product names: pages of hits, completion, and corrections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple, TypeVar

from polyglot_persistence.domain.order import Order
from polyglot_persistence.domain.search.matching import edits, highlighted, rank_of
from polyglot_persistence.domain.search.query import (
    Facets,
    NameOrders,
    Position,
    SearchQuery,
    position,
)
from polyglot_persistence.domain.search.ranking import Ranking
from polyglot_persistence.domain.search.stems import stem
from polyglot_persistence.domain.search.terms import QueryWord, parse_query
from polyglot_persistence.domain.search.text import is_spelt, is_unspaced, words
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.clock import Clock
from polyglot_persistence.ports.search import SearchIndex
from polyglot_persistence.runtime.remembered import Remembered

CORRECTED_WORDS_MAX = 4
"""Maximum words of a query that found nothing; each is looked up alone, then some together."""

CORRECTION_SECONDS_MAX = 1.0
"""Maximum time for a correction; after it there is none."""

NEAR_NAMES_MAX = 100

LOOKED_THROUGH_MAX = 200
"""Maximum names with the longer words of a text that are searched for its single letters."""

SUGGESTIONS_REMEMBERED_MAX = 4_096
T = TypeVar("T")

SUGGESTIONS_REMEMBERED_SECONDS = 5.0
"""Completions are cached for this long. Most users type the same beginnings, and the shortest ones
are both the slowest and the most frequent. A new product is suggested this much later."""


NAMES_PER_TURN = 2
"""Names compared with a query before other requests run: at worst some 5 ms each, where all words
of a name are as long as all words of the query."""

CORRECTED_LETTERS_PER_EDIT = 3
"""A correction may change a third of a word, so words of one or two characters stay as they are."""


class FoundOrder(NamedTuple):
    """A hit as displayed."""

    order: Order
    score: float
    """Above 0 and at most 1; 1 means that every word matches exactly."""
    highlighted: str
    """The name as HTML text, with matches in `<mark>`."""


class Page(NamedTuple):
    """A page of hits."""

    total: int
    total_is_exact: bool
    found: Sequence[FoundOrder]
    facets: Facets | None
    end: Position | None
    """Where the next page begins; None on the last."""
    did_you_mean: str | None
    """Similar words that have hits, if the query has none."""


class Suggestion(NamedTuple):
    """A product name that completes the typed text."""

    product_name: str
    highlighted: str


class SearchFlow:
    """Answers queries from the search index, a projection of the record."""

    def __init__(self, search: SearchIndex, clock: Clock) -> None:
        self._search = search
        self._suggested = Remembered[tuple[tuple[QueryWord, ...], int], Sequence[Suggestion]](
            clock,
            entries_max=SUGGESTIONS_REMEMBERED_MAX,
            seconds=SUGGESTIONS_REMEMBERED_SECONDS,
        )

    async def search(self, query: SearchQuery) -> Page:
        """Return a page.

        Raises:
            UnavailableError: the index is missing or away; never an empty success.
        """
        # One more hit than requested shows whether there is a next page.
        result = await self._search.search(query._replace(hits_max=query.hits_max + 1))
        asked = query.words or ()
        ranking = Ranking(len(asked))
        hits = result.hits[: query.hits_max]
        end = None
        if len(result.hits) > len(hits):
            end = position(hits[-1].order, hits[-1].rank, query.sort)
        found = []
        async for order, rank in _in_turns(hits):
            shown = highlighted(order.product_name, asked)
            found.append(FoundOrder(order, ranking.score(rank), shown))
        return Page(
            result.total,
            result.total_is_exact,
            found,
            result.facets,
            end,
            await self._correction(asked) if result.total == 0 and asked else None,
        )

    async def suggest(self, text: str, names_max: int) -> Sequence[Suggestion]:
        """Return names that complete a text, the most ordered first.

        Parts of words and words with typos are found only if no name has, or begins with, the typed
        text. Results are remembered for `SUGGESTIONS_REMEMBERED_SECONDS`.

        Raises:
            UnavailableError: the index is missing or away.
        """
        asked = parse_query(text)
        if remembered := self._suggested.get((asked, names_max)):
            return remembered
        spelt = tuple(word._replace(parts=(), typos_max=0) for word in asked)
        names = await self._spelt_so(spelt, names_max)
        if not names and spelt != asked:
            names = await self._search.names(asked, names_max)
        found = [Suggestion(name, highlighted(name, asked)) async for name, _ in _in_turns(names)]
        self._suggested.remember((asked, names_max), found)
        return found

    async def _spelt_so(self, asked: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return the most ordered names that have all of the words, or words that begin like them.

        A single letter is searched for in the names that have the other words. An engine would
        first collect a third of all orders for it, and one in forty typed beginnings ends with a
        single letter.
        """
        letters = [word for word in asked if len(word.stem) == 1]
        longer = [word for word in asked if len(word.stem) > 1]
        if letters and longer:
            names = await self._search.names(longer, LOOKED_THROUGH_MAX)
            found = [
                one
                async for one in _in_turns(names)
                if all(rank_of(one.product_name, (w,)) for w in letters)
            ]
            if len(found) >= names_max or (found and len(names) < LOOKED_THROUGH_MAX):
                return found[:names_max]
        return await self._search.names(asked, names_max)

    async def _correction(self, asked: Sequence[QueryWord]) -> str | None:
        """Return a correction, or None if it takes long or fails: that nothing matches is known."""
        with contextlib.suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(CORRECTION_SECONDS_MAX):
                return await self._did_you_mean(asked)
        return None

    async def _did_you_mean(self, asked: Sequence[QueryWord]) -> str | None:
        """Return words near those of the query that occur together in a name, if any."""
        near = await asyncio.gather(*map(self._nearest, asked[:CORRECTED_WORDS_MAX]))
        for chosen in _choices([word for word in near if word]):
            if len(max(chosen, key=len)) == 1:
                continue  # single letters carry no meaning to correct
            if parse_query(" ".join(chosen)) == tuple(asked):
                continue  # the name itself matches; the bounds exclude it
            if await self._search.names(parse_query(" ".join(chosen)), 1):
                return " ".join(chosen)
        return None

    async def _nearest(self, word: QueryWord) -> str | None:
        """Return the nearest word of any name, if one is near enough.

        For a single letter that is the letter itself: it begins too many words to be short for one.
        """
        if is_unspaced(word.stem):
            return None  # a sign has a meaning of its own: no other is near it
        edits_max = len(word.stem) // CORRECTED_LETTERS_PER_EDIT if is_spelt(word.stem) else 0
        begun = word.prefixes if len(word.prefixes[0]) > 1 else ()
        beginnings = tuple(one[: max(2, len(one) // 2)] for one in begun[:1])
        wide = word._replace(prefixes=beginnings, parts=(), typos_max=min(edits_max, 2))
        names = await self._search.names([wide], NEAR_NAMES_MAX)
        nearest: tuple[int, str] | None = None
        seen: set[str] = set()
        async for name, _ in _in_turns(names):
            for own in words(name):
                if own in seen:
                    continue
                seen.add(own)
                away = edits(stem(own), word.stem, edits_max)
                if own.startswith(begun):
                    away = 0
                if away <= edits_max and (nearest is None or away < nearest[0]):
                    nearest = (away, own)
        return nearest and nearest[1]


async def _in_turns(compared: Sequence[T]) -> AsyncIterator[T]:
    """Yield hits or names, and let other requests run before every few of them."""
    for place, one in enumerate(compared):
        if place % NAMES_PER_TURN == 0:
            await asyncio.sleep(0)
        yield one


def _choices(near: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield all of the words, then all but one, then each alone; ties go to the longest first.

    A long word says more about the intent than a short one.
    """
    if near:
        yield near
    if len(near) > 1:
        shorter = [[*near[:place], *near[place + 1 :]] for place in reversed(range(len(near)))]
        yield from sorted(shorter, key=_letters, reverse=True)
    if len(near) > 2:  # noqa: PLR2004  of two these were the pairs without one
        yield from sorted(([word] for word in near), key=_letters, reverse=True)


def _letters(chosen: Sequence[str]) -> int:
    return sum(map(len, chosen))
