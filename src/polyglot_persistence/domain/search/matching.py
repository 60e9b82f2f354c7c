"""How a name matches a query, computed without an engine: for highlighting and for corrections."""

import functools
import html
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from polyglot_persistence.domain.search.ranking import Counts, Ranking, Tier
from polyglot_persistence.domain.search.terms import (
    QueryWord,
    Term,
    beginnings,
    exact_terms,
    part_places,
)
from polyglot_persistence.domain.search.text import LocatedWord, located_words

MATCHES_CACHED_MAX = 8_192
"""Some MB. The hits of a query repeat their names."""

NAMES_CACHED_MAX = 4_096
"""Some MB. Queries find the same names again and again, and analyzing one costs 20 us."""

PLACES_CACHED_MAX = 256
"""Words of current queries; each is compared with many."""

MARK = ("<mark>", "</mark>")


class Span(NamedTuple):
    """A part of a text, in characters; the end is excluded."""

    start: int
    end: int


class _Name(NamedTuple):
    """An analyzed name: the result of `terms.name_terms`, with positions."""

    exact: Sequence[Term]
    distinct: frozenset[str]
    begun: Sequence[tuple[LocatedWord, str]]
    spelt: Sequence[tuple[LocatedWord, str]]


@functools.lru_cache(maxsize=NAMES_CACHED_MAX)
def _taken_apart(name: str) -> _Name:
    located = located_words(name)
    exact = list(exact_terms(located))
    return _Name(
        exact,
        frozenset(one.term for one in exact),
        [(word, one) for word in located for one in beginnings(word)],
        [(word, one) for word in located for one in word.spellings],
    )


@functools.lru_cache(maxsize=MATCHES_CACHED_MAX)
def rank_of(name: str, query: tuple[QueryWord, ...]) -> int:
    """Return the rank of a match; 0 if no query word occurs as it is spelled."""
    tiers = [_tier(_taken_apart(name), word) for word in query]
    counts = (
        sum(tier >= wanted for tier in tiers) for wanted in (Tier.PART, Tier.BEGINNING, Tier.EXACT)
    )
    return Ranking(len(query)).rank(Counts(*counts))


def _tier(name: _Name, word: QueryWord) -> Tier:
    """Return the tier of a known match; a typo, unchecked, if no other tier fits."""
    if not name.distinct.isdisjoint(word.exact):
        return Tier.EXACT
    if any(one.startswith(word.prefixes) for _, one in name.begun):
        return Tier.BEGINNING
    if any(_part(one, word) is not None for _, one in name.spelt):
        return Tier.PART
    return Tier.TYPO


def _part(spelling: str, word: QueryWord) -> Span | None:
    """Return where a word contains the query's word."""
    for part in word.parts:
        if part not in spelling:  # most do not, and need no search for the place
            continue
        for place in part_places(spelling):
            if spelling.startswith(part, place):
                return Span(place, place + len(part))
    return None


@functools.lru_cache(maxsize=MATCHES_CACHED_MAX)
def spans_of(name: str, query: tuple[QueryWord, ...]) -> Sequence[Span]:
    """Return the matching parts of the name; a query word without a match adds nothing.

    It compares misspelled words letter by letter: the rank alone costs a tenth of that.
    """
    apart = _taken_apart(name)
    spans: set[Span] = set()
    for word in query:
        spans.update(_smallest(_matching(apart, word)))
    return sorted(spans)


def _matching(name: _Name, word: QueryWord) -> Iterator[Span]:
    """Yield the matches of a query's word, of its best tier only."""
    tier = _tier(name, word)
    if tier is Tier.EXACT:
        yield from (Span(start, end) for term, start, end in name.exact if term in word.exact)
    elif tier is Tier.BEGINNING:
        yield from _begun(name, word)
    elif tier is Tier.PART:
        within = [(found, one, _part(one, word)) for found, one in name.spelt]
        yield from (_of_name(found, one, span) for found, one, span in within if span)
    else:
        yield from (
            Span(start, end)
            for term, start, end in name.exact
            if edits(term, word.stem, word.typos_max) <= word.typos_max
        )


def _smallest(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the spans that contain no other: single words rather than joined ones."""
    start_max = -1
    for span in sorted(spans, key=lambda span: (span.end, -span.start)):
        if span.start > start_max:
            start_max = span.start
            yield span


def _begun(name: _Name, word: QueryWord) -> Iterator[Span]:
    for found, one in name.begun:
        for prefix in word.prefixes:
            if one.startswith(prefix):
                yield _of_name(found, one, Span(0, len(prefix)))
                break


def _of_name(found: LocatedWord, spelling: str, span: Span) -> Span:
    """Return the span in the name; of the whole word if its letters do not map to the name's."""
    if spelling != found.word or found.end - found.start != len(found.word):
        return Span(found.start, found.end)
    return Span(found.start + span.start, found.start + span.end)


@functools.lru_cache(maxsize=MATCHES_CACHED_MAX)
def highlighted(name: str, query: tuple[QueryWord, ...]) -> str:
    """Return the name as HTML text, with matches in `<mark>`."""
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


def edits(left: str, right: str, edits_max: int) -> int:
    """Return the number of letters to add, drop, change or swap with their neighbors.

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
    """Return a bit mask of its positions for each letter."""
    places: dict[str, int] = {}
    for place, letter in enumerate(word):
        places[letter] = places.get(letter, 0) | 1 << place
    return places
