"""How product names and queries become words, and how a match is ranked, for every search engine.

Both engines index exactly these words and rank by exactly these numbers, so that they answer alike;
what an engine brings of its own is only the finding.

    "Kellogg's CORN-FLAKES 16oz"   words  kelloggs corn flakes 16 oz
                                   stems  kellogg  corn flake  16 oz

A query word matches a name's word, best first:

    exactly      their stems are equal
    as a prefix  the name's word begins with the query's word, or with its singular
    with a typo  their stems are within one (from 4 letters) or two (from 8) edits: a letter
                 added, dropped, changed, or swapped with its neighbour. The lengths are those of
                 Algolia, https://www.algolia.com/doc/guides/managing-results/optimize-search-results/typo-tolerance

Invariant: any text is accepted, here nothing is syntax and nothing raises.
Invariant: `ANALYSIS_VERSION` grows with every change of what `words` or `stem` return, for an index
that was built with others has to be built anew.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ANALYSIS_VERSION = 2

QUERY_WORDS_MAX = 16
"""Distinct words of a query that count; each costs an engine several look-ups."""

WORD_CHARACTERS_MAX = 64
"""A longer word is cut, in names and queries alike."""

STEMS_CACHED_MAX = 16_384
"""About 2 MB. The names of an order stream repeat their words, and a stem costs 5 us."""

CHARACTERS_CACHED_MAX = 4_096

TYPO_LETTERS_MIN = 4
TYPOS_LETTERS_MIN = 8

_ASCII_WORD = re.compile("[a-z]+|[0-9]+")

_PLURAL_ENDINGS = (
    (re.compile("^([a-z]{2,})ies$"), r"\1y"),  # berries, fries; but pies
    (re.compile("^([a-z]+(?:ch|sh|ss|x|zz)|[a-z]{3,}o)es$"), r"\1"),  # boxes, tomatoes; but shoes
    (re.compile("^([a-z]{2,}[a-rtv-z]|[a-z][b-df-hj-np-rtv-z])s$"), r"\1"),  # lbs; but gas, glass
)
_UNITED_ENDINGS = (
    (re.compile("^([a-z]+[^aeiou])y$"), r"\1i"),  # berry, as berri(es)
    (re.compile("^([a-z]{2,})ie$"), r"\1i"),  # cookie, as cook(ies)
    (re.compile("^([a-z]{2,})[fv]e$"), r"\1v"),  # knife, kni(ves)
    (re.compile("^([a-z]{2,}[^f])f$"), r"\1v"),  # loaf, loa(ves)
)

_APOSTROPHES = "'\u2018\u2019\u02bc\uff07"
_IGNORED = dict.fromkeys(map(ord, _APOSTROPHES + "\u00a9\u00ae\u2117\u2120\u2122"))
"""Apostrophes join what they part; marks of trade would become letters or words."""

_UNFOLDED = str.maketrans({
    "\u00e6": "ae", "\u0153": "oe", "\u00f8": "o", "\u00f0": "d", "\u00fe": "th",
    "\u0111": "d", "\u0142": "l", "\u0131": "i", "\u0127": "h", "\u0167": "t",
})  # fmt: skip
"""Letters that Unicode does not decompose although readers of English type them so."""

# Scripts that are written without spaces: each sign is a word of its own.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao; Burmese; Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"  # kana, Han
)

# Marks without which a reader still knows the word: accents and points of the Latin, Greek,
# Cyrillic, Hebrew and Arabic scripts, and selectors of variants. Elsewhere a mark is a vowel, a
# tone or another consonant.
_OPTIONAL_MARK = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0898-\u08ff\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufb1e\ufe00-\ufe0f"
    "\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)


def words(text: str) -> list[str]:
    """Return the words of `text`, in order: folded case and accents, no punctuation.

    Digits and letters part (`16oz` is two words); a pictograph is a word.
    """
    if text.isascii():
        found = _ASCII_WORD.findall(text.translate(_IGNORED).lower())
        return [word[:WORD_CHARACTERS_MAX] for word in found]
    return [located.word for located in located_words(text)]


class LocatedWord(NamedTuple):
    """A word, and the characters of the text that it was made of; the end is not in it."""

    word: str
    start: int
    end: int


def located_words(text: str) -> list[LocatedWord]:
    """Return what `words` returns, with where it stands."""
    return list(_located(text))


def _located(text: str) -> Iterator[LocatedWord]:
    run: list[str] = []
    kind = ""
    start = end = 0
    for at, character in enumerate(text):
        for sign in _folded(character):
            sign_kind = _kind(sign)
            if sign_kind == "ignored":
                end = at + 1
            elif sign_kind == "mark":
                if run and kind != "digit":
                    run.append(sign)
                    end = at + 1
            else:
                if run and (sign_kind != kind or sign_kind == "alone"):
                    yield _word(run, start, end)
                    run = []
                if sign_kind == "part":
                    continue
                if not run:
                    start = at
                run.append(str(unicodedata.decimal(sign)) if sign_kind == "digit" else sign)
                kind = sign_kind
                end = at + 1
    if run:
        yield _word(run, start, end)


@functools.lru_cache(maxsize=CHARACTERS_CACHED_MAX)
def _kind(sign: str) -> str:
    """Return what a folded sign does to a word: it joins one, is one alone, or parts two."""
    category = unicodedata.category(sign)
    if category == "Cf" or _OPTIONAL_MARK.match(sign):  # joiners, accents
        return "ignored"
    if category == "So" or (category[0] == "L" and is_unspaced(sign)):
        return "alone"
    if category == "Nd":
        return "digit"
    return {"M": "mark", "L": "letter", "N": "letter"}.get(category[0], "part")


def is_unspaced(word: str) -> bool:
    """Return whether a word is a sign of a script that is written without spaces."""
    return _UNSPACED.match(word) is not None


def _word(run: Sequence[str], start: int, end: int) -> LocatedWord:
    return LocatedWord("".join(run)[:WORD_CHARACTERS_MAX], start, end)


@functools.lru_cache(maxsize=CHARACTERS_CACHED_MAX)
def _folded(character: str) -> str:
    """Return a character without case, accents and ligatures; nothing, if it is ignored."""
    folded = unicodedata.normalize("NFKD", character.translate(_IGNORED)).casefold()
    return unicodedata.normalize("NFKD", folded).translate(_IGNORED).translate(_UNFOLDED)


def singular(word: str) -> str:
    """Return an English word without its plural ending; still readable, so it can be a prefix."""
    return _first_replaced(word, _PLURAL_ENDINGS)


@functools.lru_cache(maxsize=STEMS_CACHED_MAX)
def stem(word: str) -> str:
    """Return what all forms of an English noun have in common; not itself a word.

    Light on purpose: it unites plurals (berry, berries, berrys; cookie, cookies; loaf, loaves) and
    hardly ever two words, as a full stemmer (Porter) does.
    """
    return _first_replaced(singular(word), _UNITED_ENDINGS)


def _first_replaced(word: str, endings: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in endings:
        replaced, count = pattern.subn(replacement, word)
        if count:
            return replaced
    return word


class QueryWord(NamedTuple):
    """One word of a query, as an engine has to look for it."""

    stem: str
    prefixes: tuple[str, ...]
    typos_max: int


def parse_query(text: str) -> tuple[QueryWord, ...]:
    """Return the first `QUERY_WORDS_MAX` distinct words of a query; none if it has no word."""
    parsed: dict[str, QueryWord] = {}
    for word in words(text):
        root = stem(word)
        if root not in parsed:
            if len(parsed) == QUERY_WORDS_MAX:
                break
            prefixes = tuple(dict.fromkeys((word, singular(word))))
            parsed[root] = QueryWord(root, prefixes, _typos_max(root))
    return tuple(parsed.values())


def _typos_max(root: str) -> int:
    if len(root) < TYPO_LETTERS_MIN or not is_spelt(root):
        return 0
    return 1 if len(root) < TYPOS_LETTERS_MIN else 2


def is_spelt(word: str) -> bool:
    """Return whether a word has letters and their marks only, so that it can be misspelt."""
    return all(unicodedata.category(sign)[0] in "LM" for sign in word)


class Ranking:
    """The number that ranks a match of a query of so many words, and its parts.

    First come the matches with the fewest typos, among these those with the most exact words:
    an engine adds `unmisspelt` for each word that matches exactly or as a prefix, and `exact` for
    each that matches exactly. All sums are small integers, so they are exact also in the 32-bit
    floats that engines add scores in. Of equal ranks the newer order goes first, which is the
    likelier one to be of a product that is often ordered; then the greater id.
    """

    exact = 1

    def __init__(self, query_words: int) -> None:
        self.unmisspelt = query_words + 1
        self.rank_max = query_words * (self.unmisspelt + self.exact)

    def score(self, rank: float) -> float:
        """Return a rank as a score above 0 and up to 1 (every word exact)."""
        return (rank + 1) / (self.rank_max + 1)

    def parts(self, rank: float) -> tuple[int, int]:
        """Return how many words a rank has unmisspelt, and how many of them exact."""
        return divmod(int(rank), self.unmisspelt)
