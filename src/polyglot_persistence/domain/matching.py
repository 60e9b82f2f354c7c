"""How a name matches a query, looked at without an engine: for highlighting and for corrections."""

import functools
import html
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from polyglot_persistence.domain.text import (
    LocatedWord,
    QueryWord,
    Ranking,
    located_words,
    stem,
)

MATCHES_CACHED_MAX = 8_192
"""Some MB. The hits of a query repeat their names."""

NAMES_CACHED_MAX = 4_096
"""Some MB. Queries find the same names again and again, and taking one apart costs 20 us."""

PLACES_CACHED_MAX = 256
"""Words of the queries of a moment; each is compared with many."""

MARK = ("<mark>", "</mark>")


class Span(NamedTuple):
    """A part of a text, by its characters; the end is not in it."""

    start: int
    end: int


@functools.lru_cache(maxsize=NAMES_CACHED_MAX)
def _taken_apart(name: str) -> Sequence[tuple[LocatedWord, str]]:
    """Return the words of a name with their stems."""
    return [(one, stem(one.word)) for one in located_words(name)]


@functools.lru_cache(maxsize=MATCHES_CACHED_MAX)
def rank_of(name: str, query: tuple[QueryWord, ...]) -> int:
    """Return the rank of a match; 0 if no query word is there as it is spelt or as a beginning."""
    ranking = Ranking(len(query))
    rank = 0
    located = _taken_apart(name)
    for word in query:
        if any(root == word.stem for _, root in located):
            rank += ranking.unmisspelt + ranking.exact
        elif any(one.word.startswith(word.prefixes) for one, _ in located):
            rank += ranking.unmisspelt
    return rank


@functools.lru_cache(maxsize=MATCHES_CACHED_MAX)
def spans_of(name: str, query: tuple[QueryWord, ...]) -> Sequence[Span]:
    """Return what of the name matches; a query word that it lacks adds nothing.

    It compares misspelt words letter by letter: the rank alone costs a tenth of that.
    """
    spans: set[Span] = set()
    located = _taken_apart(name)
    for word in query:
        exact = [one for one, root in located if root == word.stem]
        longer = [one for one, _ in located if one.word.startswith(word.prefixes)]
        if exact:
            spans.update(Span(one.start, one.end) for one in exact)
        elif longer:
            spans.update(_beginning(one, word) for one in longer)
        else:
            spans.update(
                Span(one.start, one.end)
                for one, root in located
                if edits(root, word.stem, word.typos_max) <= word.typos_max
            )
    return sorted(spans)


@functools.lru_cache(maxsize=MATCHES_CACHED_MAX)
def highlighted(name: str, query: tuple[QueryWord, ...]) -> str:
    """Return the name as HTML text, with what matches within `<mark>`."""
    return "".join(_parts(name, spans_of(name, query)))


def _parts(name: str, spans: Sequence[Span]) -> Iterator[str]:
    at = 0
    for span in spans:
        if span.end <= at:
            continue
        start = max(span.start, at)  # two words may share a character, as in a fraction
        yield html.escape(name[at:start])
        yield f"{MARK[0]}{html.escape(name[start : span.end])}{MARK[1]}"
        at = span.end
    yield html.escape(name[at:])


def _beginning(found: LocatedWord, word: QueryWord) -> Span:
    """Return what was typed of a longer word, or all of it where characters do not map to ours."""
    prefix = next(one for one in word.prefixes if found.word.startswith(one))
    if found.end - found.start != len(found.word):
        return Span(found.start, found.end)
    return Span(found.start, found.start + len(prefix))


def edits(left: str, right: str, edits_max: int) -> int:
    """Return how many letters to add, drop, change or swap with their neighbours.

    Optimal string alignment, as both engines count; above `edits_max` any number above it. A row of
    the table is the bits of two integers: H. Hyyrö, "A bit-vector algorithm for computing
    Levenshtein and Damerau edit distances", Nordic Journal of Computing 10 (2003).
    """
    if abs(len(left) - len(right)) > edits_max:
        return edits_max + 1
    if left == right:
        return 0
    if not left or not right:
        return len(left) or len(right)
    places = _places(right)
    last = 1 << (len(right) - 1)
    every = (last << 1) - 1
    rising, falling, diagonal, before = every, 0, 0, 0
    away = len(right)
    for done, letter in enumerate(left, 1):
        here = places.get(letter, 0)
        swapped = ((~diagonal & here) << 1) & before
        diagonal = (((here & rising) + rising) ^ rising) | here | falling | swapped
        higher = (falling | ~(diagonal | rising)) & every
        lower = diagonal & rising
        if higher & last:
            away += 1
        elif lower & last:
            away -= 1
        if away - (len(left) - done) > edits_max:
            return edits_max + 1
        higher = (higher << 1) | 1
        rising = ((lower << 1) | ~(diagonal | higher)) & every
        falling = higher & diagonal & every
        before = here
    return away


@functools.lru_cache(maxsize=PLACES_CACHED_MAX)
def _places(word: str) -> dict[str, int]:
    """Return for each letter the bits of where it stands."""
    places: dict[str, int] = {}
    for place, letter in enumerate(word):
        places[letter] = places.get(letter, 0) | 1 << place
    return places
