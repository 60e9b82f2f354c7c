"""Terms of names and of queries, the same for every search engine.

    "Wi-Fi Router"     words  wi fi router      exact  wi fi router wifi firouter wifirouter
    "Kaffeemaschinen"  words  kaffeemaschinen   exact  kaffeemaschinen   parts  feemaschinen ...
                                                                         maschinen ... inen
    "Müsli"            words  musli muesli      exact  musli muesli
    "C++ Primer"       words  c c++ primer      exact  c c++ primer cprimer
    "上海牌"            words  上 海 牌            exact  上 海 牌 上海 海牌

A query word matches a name, best tier first (`ranking.Tier`):

    exactly      one of its terms is a term of the name: a stem (`stems.stem`), in either spelling
                 of an umlaut; with its signs, if it has any; or neighbors written together. The
                 neighbors may be the name's or the query's: `wifi` and `wi-fi` find each other
    beginning    a word of the name begins with the query's word, or with its singular
    part         a word of the name has the query's word within
    with a typo  a term of the name is within one (from 4 letters) or two (from 8) edits: a letter
                 added, dropped, changed, or swapped with its neighbor. The lengths are those of
                 Algolia, https://www.algolia.com/doc/guides/managing-results/optimize-search-results/typo-tolerance
                 A sign is a letter here: `disney+` finds Disney so, `c++` neither C nor C#

In a script without spaces each sign is a word. If a query has several in a row, each is found
exactly beside the one that follows it in the query (the last: after the one before it). Anywhere
else in a name it matches as a beginning does: `上海` finds 上海 before 海上. Lucene's
`CJKBigramFilter` makes the same pairs, and matches nothing else.

Bounds: the first `JOINED_AMONG_WORDS_MAX` words of a name give at most 29 joined terms, and n
letters give parts of less than 20 n letters.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from polyglot_persistence.domain.search.stems import singular, stem
from polyglot_persistence.domain.search.text import (
    LocatedWord,
    is_spelt,
    is_unspaced,
    located_words,
)

ANALYSIS_VERSION = 3
"""Incremented with every change of a name's terms: an index built with others must be rebuilt."""

QUERY_WORDS_MAX = 16
"""Maximum distinct words of a query; each costs an engine several look-ups."""

TYPO_LETTERS_MIN = 4
TYPOS_LETTERS_MIN = 8

JOINED_WORDS_MAX = 3
"""Maximum neighbors written as one: headphones, rock'n'roll, t-shirt."""
JOINED_CHARACTERS_MAX = 32
JOINED_AMONG_WORDS_MAX = 16
"""Only the first words of a name or a query are joined: later ones seldom have two spellings."""
JOINED_QUERY_TERMS_MAX = 12
"""For each word of a query. A word that occurs once has at most ten: five, in two spellings."""

PAIR_CHARACTERS_BETWEEN_MAX = 1
"""Between two adjacent signs of a name: a blank or dot, which a query may lack."""

PART_LETTERS_MIN = 4
"""Shorter parts occur in too many words: `red` in powdered, `ice` in juice and office."""
PART_PLACE_MIN = 3
"""Letters before a part: fewer are no word, and `rice` is no part of price."""
PART_WORD_CHARACTERS_MAX = 40
"""Longer words are not compounds."""

_HANGUL_LETTERS = "\u1100\u11ff"
_HANGUL_FIRST = "\u1100\u1112"


class Term(NamedTuple):
    """A term, and the characters of the name that it was made of; the end is excluded."""

    term: str
    start: int
    end: int


def exact_terms(name: Sequence[LocatedWord]) -> Iterator[Term]:
    """Yield the exact terms: stems, words with their signs, pairs, joined neighbors."""
    for word in name:
        for spelling in word.spellings:
            yield Term(stem(spelling), word.start, word.end)
        for spelling in word.with_signs:
            yield Term(spelling, word.start - len(word.before), word.signs_end or word.end)
    for one, other in itertools.pairwise(name):
        if _are_pair(one, other, PAIR_CHARACTERS_BETWEEN_MAX):
            yield Term(one.word + other.word, one.start, other.end)
    for run in _neighbours(name):
        for joined in _joined(run):
            yield Term(joined, run[0].start, run[-1].end)


def _are_pair(one: LocatedWord, other: LocatedWord, characters_between_max: int) -> bool:
    return (
        is_unspaced(one.word)
        and is_unspaced(other.word)
        and other.start - one.end <= characters_between_max
    )


def beginnings(word: LocatedWord) -> Iterator[str]:
    """Yield the forms of a word that a query's word may begin."""
    for spelling in word.spellings:
        yield spelling
        if not spelling.isascii() and not spelling.startswith(bare := singular(spelling)):
            yield bare  # without its article, which stood at the beginning
    yield from word.with_signs


def part_places(word: str) -> Iterator[int]:
    """Yield the positions where a part of a word may begin."""
    if len(word) > PART_WORD_CHARACTERS_MAX:
        return
    places = range(1, len(word) - PART_LETTERS_MIN + 1)
    if word.isascii():
        yield from places[PART_PLACE_MIN - 1 :] if word.isalpha() else ()
    elif is_spelt(word) and not is_unspaced(word):
        yield from (place for place in places if _is_part_place(word, place))


def _is_part_place(word: str, place: int) -> bool:
    letter = word[place]
    if _HANGUL_LETTERS[0] <= letter <= _HANGUL_LETTERS[1]:  # a syllable stays whole
        return _HANGUL_FIRST[0] <= letter <= _HANGUL_FIRST[1]
    return place >= PART_PLACE_MIN and letter.isalpha()


class NameTerms(NamedTuple):
    """Terms of a name in an index: each distinct term once, in the order of the name."""

    words: Sequence[str]
    exact: Sequence[str]
    parts: Sequence[str]


def name_terms(name: str) -> NameTerms:
    """Return the terms of a name."""
    located = located_words(name)
    parts = (
        spelling[place:]
        for word in located
        for spelling in word.spellings
        for place in part_places(spelling)
    )
    return NameTerms(
        list(dict.fromkeys(one for word in located for one in beginnings(word))),
        list(dict.fromkeys(term for term, *_ in exact_terms(located))),
        list(dict.fromkeys(parts)),
    )


class QueryWord(NamedTuple):
    """One word of a query, with the terms to look for."""

    exact: tuple[str, ...]
    """Alternative terms. The first is the word's own: typos are allowed in it only."""
    prefixes: tuple[str, ...]
    parts: tuple[str, ...]
    typos_max: int

    @property
    def stem(self) -> str:
        """The word's own term."""
        return self.exact[0]


@functools.lru_cache(maxsize=256)
def parse_query(text: str) -> tuple[QueryWord, ...]:
    """Return the first `QUERY_WORDS_MAX` distinct words of a query; none if it has no word."""
    found: dict[tuple[str, str], LocatedWord] = {}
    counted: list[LocatedWord] = []
    located = located_words(text)
    for word, pair in zip(located, _pairs(located), strict=True):
        own = _own_terms(word)[0], pair
        if own not in found and len(found) == QUERY_WORDS_MAX:
            break
        found.setdefault(own, word)
        counted.append(word)
    together: dict[str, dict[str, None]] = {own: {} for own, _ in found}
    for run in _neighbours(counted):
        if not any(word.with_signs for word in run):
            for word in run:
                together[_own_terms(word)[0]].update(dict.fromkeys(_joined(run)))
    return tuple(
        QueryWord((pair,), (word.word,), (), 0) if pair else _query_word(word, together[own])
        for (own, pair), word in found.items()
    )


def _pairs(query: Sequence[LocatedWord]) -> Iterator[str]:
    """Yield the pair of each query word; empty for a word that stands alone."""
    before = ""
    for place, word in enumerate(query):
        after = ""
        if place + 1 < len(query) and _are_pair(word, query[place + 1], 0):
            after = word.word + query[place + 1].word
        yield after or before
        before = after


def _own_terms(word: LocatedWord) -> Sequence[str]:
    return word.with_signs or [stem(spelling) for spelling in word.spellings]


def _query_word(word: LocatedWord, together: Iterable[str]) -> QueryWord:
    own = _own_terms(word)
    joined = list(together)[:JOINED_QUERY_TERMS_MAX]
    spellings = word.with_signs or word.spellings
    prefixes = [form for one in spellings for form in (one, singular(one))]
    within = [*prefixes, *own] if is_joinable(word) and not word.with_signs else []
    return QueryWord(
        tuple(dict.fromkeys((*own, *joined))),
        tuple(dict.fromkeys(prefixes)),
        tuple(dict.fromkeys(one for one in within if len(one) >= PART_LETTERS_MIN)),
        _typos_max(own[0], word),
    )


def _typos_max(own: str, word: LocatedWord) -> int:
    if len(own) < TYPO_LETTERS_MIN or not is_spelt(word.word):
        return 0
    return 1 if len(own) < TYPOS_LETTERS_MIN else 2


def is_joinable(word: LocatedWord) -> bool:
    """Return whether a word could be a part of another: numbers and single signs could not."""
    return is_spelt(word.word) and not is_unspaced(word.word)


def _neighbours(name: Sequence[LocatedWord]) -> Iterator[Sequence[LocatedWord]]:
    """Yield each run of two or three words that could be written as one."""
    joinable = [is_joinable(word) for word in name[:JOINED_AMONG_WORDS_MAX]]
    for first in range(len(joinable)):
        for end in range(first + 1, min(first + JOINED_WORDS_MAX, len(joinable)) + 1):
            if not joinable[end - 1]:
                break
            if end - first > 1:
                yield name[first:end]


def _joined(run: Sequence[LocatedWord]) -> Iterator[str]:
    writings = ["".join([word.word for word in run])]
    if any(word.spelt_out for word in run):
        writings.append("".join([word.spelt_out or word.word for word in run]))
    for joined in writings:
        if len(joined) <= JOINED_CHARACTERS_MAX:
            yield stem(joined)
