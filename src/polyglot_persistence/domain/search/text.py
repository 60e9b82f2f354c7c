"""Splits product names and queries into words, for every search engine.

    "Kellogg's CORN-FLAKES 16oz"   kelloggs corn flakes 16 oz

`terms` derives the terms of names and queries from them.

Invariant: any text is accepted; nothing is syntax and nothing raises.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

WORD_CHARACTERS_MAX = 64
"""A longer word is cut, in names and queries alike."""

CHARACTERS_CACHED_MAX = 4_096

# Same as the loop below for ASCII, in a twentieth of the time.
_ASCII_WORD = re.compile("[a-z](?:[a-z']*[a-z])?|[0-9](?:[0-9']*[0-9])?")

_APOSTROPHES = "'\u2018\u2019\u02bc\uff07"
_IGNORED = dict.fromkeys(map(ord, _APOSTROPHES + "\u00a9\u00ae\u2117\u2120\u2122"))
"""Apostrophes join their neighbors; trademark signs would become letters or words."""

_UNFOLDED = str.maketrans({
    "\u00e6": "ae", "\u0153": "oe", "\u00f8": "o\u0338", "\u00f0": "d", "\u00fe": "th",
    "\u0111": "d", "\u0142": "l", "\u0131": "i", "\u0127": "h", "\u0167": "t",
    # Arabic and Persian letters typed for each other, and a stroke that only stretches.
    "\u0629": "\u0647", "\u0649": "\u064a", "\u06cc": "\u064a", "\u06a9": "\u0643", "\u0640": None,
})  # fmt: skip
"""Letters that Unicode does not decompose although readers type their base letters."""

_SPELT_OUT = {
    ("a", "\u0308"): "e", ("o", "\u0308"): "e", ("u", "\u0308"): "e",
    ("o", "\u0338"): "e", ("a", "\u030a"): "a",
}  # fmt: skip
"""Letters and marks that Germans and Danes type as two letters without the right keyboard. Only
words with the mark have two spellings: `aero` and `blue` have no other."""

# Signs that make a different word: C++, C#, A+, Notepad++; but not salt+pepper, item#5.
_BEHIND = re.compile(r"\+\+|[+#](?!\w)")
# The same after one letter and a blank: `C ++`; but not `size L # 5`.
_APART = re.compile(r"(?<!\w\w) +(\+\+|#(?! *(?:\d|\w\b)))(?![^\s,;)])")
_SIGNS = str.maketrans({"\uff0b": "+", "\uff03": "#", "\u266f": "#"})

# Scripts written without spaces: each sign is a word of its own.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao; Burmese; Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"  # kana, Han
)

# Optional marks, without which a word is still recognizable: accents and points of the Latin,
# Greek, Cyrillic, Hebrew and Arabic scripts, and variation selectors. Elsewhere a mark is a vowel,
# a tone or another consonant.
_OPTIONAL_MARK = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0898-\u08ff\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufb1e\ufe00-\ufe0f"
    "\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)


class LocatedWord(NamedTuple):
    """A word, and the characters of the text that it was made of; the end is excluded."""

    word: str
    """Without case, accents and signs."""
    start: int
    end: int
    spelt_out: str = ""
    """With `ae` for ä and the like; empty if there is no difference."""
    before: str = ""
    """The dot of `.NET`."""
    behind: str = ""
    """The signs of `C++`."""
    signs_end: int = 0
    """Where the signs end; 0 without any behind."""

    @property
    def spellings(self) -> Sequence[str]:
        """The word, and its spelled-out form if there is one."""
        return (self.word, self.spelt_out) if self.spelt_out else (self.word,)

    @property
    def with_signs(self) -> Sequence[str]:
        """The spellings with the signs; none without signs."""
        if not self.before and not self.behind:
            return ()
        return [f"{self.before}{one}{self.behind}" for one in self.spellings]


def words(text: str) -> list[str]:
    """Return the words of `text`, in order: folded case and accents, no punctuation.

    Digits and letters separate (`16oz` is two words); a pictograph is a word.
    """
    return [located.word for located in located_words(text)]


def located_words(text: str) -> list[LocatedWord]:
    """Return the words of `text`, in order, with their positions and other spellings."""
    found = list(_located_ascii(text) if text.isascii() else _located(text))
    signs = text.translate(_SIGNS)
    if "." in signs or "+" in signs or "#" in signs:
        return [_with_signs(word, signs) for word in found]
    return found


def _with_signs(located: LocatedWord, text: str) -> LocatedWord:
    if is_unspaced(located.word) or not is_spelt(located.word):
        return located
    start = located.start
    dotted = text[start - 1 : start] == "." and not _is_of_a_word(text[start - 2 : start - 1])
    located = located._replace(before="." * dotted)
    behind = _BEHIND.match(text, located.end) or _APART.match(text, located.end)
    if behind is None:
        return located
    return located._replace(behind=behind[0].lstrip(), signs_end=behind.end())


def _is_of_a_word(sign: str) -> bool:
    return sign == "." or sign.isalnum()


def _located_ascii(text: str) -> Iterator[LocatedWord]:
    for found in _ASCII_WORD.finditer(text.lower()):
        word = found[0].replace("'", "")[:WORD_CHARACTERS_MAX]
        yield LocatedWord(word, found.start(), found.end())


class _Run:
    """The signs of a word so far, plain and spelled out."""

    def __init__(self) -> None:
        self.signs: list[str] = []
        self.spelt_out: list[str] = []

    def add(self, sign: str) -> None:
        self.signs.append(sign)
        self.spelt_out.append(sign)

    def mark(self, mark: str) -> None:
        """Spell out a letter whose mark is dropped."""
        if self.signs and (letter := _SPELT_OUT.get((self.signs[-1], mark))):
            self.spelt_out.append(letter)

    def end(self, start: int, end: int) -> LocatedWord:
        """Return the word."""
        word = "".join(self.signs)[:WORD_CHARACTERS_MAX]
        spelt_out = "".join(self.spelt_out)[:WORD_CHARACTERS_MAX]
        return LocatedWord(word, start, end, "" if spelt_out == word else spelt_out)


def _located(text: str) -> Iterator[LocatedWord]:
    run = _Run()
    kind = ""
    start = end = 0
    for at, character in enumerate(text):
        for sign in _folded(character):
            sign_kind = _kind(sign)
            if sign_kind == "ignored":
                run.mark(sign)
                end = at + 1
            elif sign_kind == "mark":
                if run.signs and kind != "digit":
                    run.add(sign)
                    end = at + 1
            else:
                if run.signs and (sign_kind != kind or sign_kind == "alone"):
                    yield run.end(start, end)
                    run = _Run()
                if sign_kind == "part":
                    continue
                if not run.signs:
                    start = at
                run.add(str(unicodedata.decimal(sign)) if sign_kind == "digit" else sign)
                kind = sign_kind
                end = at + 1
    if run.signs:
        yield run.end(start, end)


@functools.lru_cache(maxsize=CHARACTERS_CACHED_MAX)
def _kind(sign: str) -> str:
    """Return the effect of a folded sign: it joins a word, is one alone, or separates two."""
    category = unicodedata.category(sign)
    if category == "Cf" or _OPTIONAL_MARK.match(sign):  # joiners, accents
        return "ignored"
    if category == "So" or (category[0] == "L" and is_unspaced(sign)):
        return "alone"
    if category == "Nd":
        return "digit"
    return {"M": "mark", "L": "letter", "N": "letter"}.get(category[0], "part")


def is_unspaced(word: str) -> bool:
    """Return whether a word is a sign of a script written without spaces."""
    return not word.isascii() and _UNSPACED.match(word) is not None


@functools.lru_cache(maxsize=CHARACTERS_CACHED_MAX)
def _folded(character: str) -> str:
    """Return a character without case, accents and ligatures; nothing if it is ignored."""
    folded = unicodedata.normalize("NFKD", character.translate(_IGNORED)).casefold()
    return unicodedata.normalize("NFKD", folded).translate(_IGNORED).translate(_UNFOLDED)


def is_spelt(word: str) -> bool:
    """Return whether a word consists of letters and their marks, so that it can be misspelled."""
    return word.isalpha() or all(unicodedata.category(sign)[0] in "LM" for sign in word)
