"""Light stemming of nouns: English plurals, Korean particles, the Arabic article.

Light on purpose: it unites the forms of a noun (berry, berries, berrys; cookie, cookies; loaf,
loaves) and hardly ever two words, unlike a full stemmer (Porter). Both names and queries are
stemmed, so a form that is stripped too far still matches itself.

The Korean rules examine the end of the rest, since most particles have one form after a consonant
and one after a vowel. The Arabic article stands alone or follows a preposition, as in Lucene's
`ArabicStemmer` (after L. S. Larkey et al., "Light Stemming for Arabic Information Retrieval",
2007).
"""

import functools
import re
import unicodedata
from collections.abc import Sequence

STEMS_CACHED_MAX = 16_384
"""About 2 MB. The names of an order stream repeat their words, and a stem costs 2 us."""

_Endings = Sequence[tuple[re.Pattern[str], str]]

_PLURAL_ENDINGS: _Endings = (
    (re.compile("^([a-z]{2,})ies$"), r"\1y"),  # berries, fries; but pies
    (re.compile("^([a-z]+(?:ch|sh|ss|x|zz)|[a-z]{3,}o)es$"), r"\1"),  # boxes, tomatoes; but shoes
    (re.compile("^([a-z]{2,}[a-rtv-z]|[a-z][b-df-hj-np-rtv-z])s$"), r"\1"),  # lbs; but gas, glass
)
_UNITED_ENDINGS: _Endings = (
    (re.compile("^([a-z]+[^aeiou])y$"), r"\1i"),  # berry, as berri(es)
    (re.compile("^([a-z]{2,})ie$"), r"\1i"),  # cookie, as cook(ies)
    (re.compile("^([a-z]{2,})[fv]e$"), r"\1v"),  # knife, kni(ves)
    (re.compile("^([a-z]{2,}[^f])f$"), r"\1v"),  # loaf, loa(ves)
)
_UNITED = ("y", "e", "f")


def _particles(rest: str, *particles: str) -> tuple[re.Pattern[str], str]:
    written = "|".join(unicodedata.normalize("NFKD", one) for one in particles)
    return re.compile(f"^({rest})(?:{written})$"), r"\1"


# Hangul is decomposed into its letters: a consonant, a vowel, perhaps a final consonant.
_VOWEL, _LAST = "[\u1161-\u1175]", "[\u11a8-\u11c2]"
_SYLLABLE = f"[\u1100-\u1112]{_VOWEL}{_LAST}?"
_OPEN, _CLOSED = f"[\u1100-\u1112]{_VOWEL}", f"[\u1100-\u1112]{_VOWEL}{_LAST}"

# ال after a preposition, or alone.
_ARTICLES: _Endings = (
    (
        re.compile("^(?:[\u0648\u0628\u0643\u0641]\u0627\u0644|\u0644\u0644|\u0627\u0644)(.{2,})$"),
        r"\1",
    ),
)
_PARTICLES: _Endings = (
    _particles(f"(?:{_SYLLABLE})*{_CLOSED}", "을", "은"),
    _particles(f"(?:{_SYLLABLE})*{_OPEN}", "를", "는"),
    # Nouns of two syllables may end in one of these: 사과, 포도.
    _particles(f"(?:{_SYLLABLE})+{_CLOSED}", "이", "과", "으로", "이랑"),
    _particles(f"(?:{_SYLLABLE})+(?:{_OPEN}|{_OPEN}\u11af)", "로"),
    _particles(f"(?:{_SYLLABLE})+{_OPEN}", "가", "와", "랑"),
    _particles(
        f"(?:{_SYLLABLE}){{2,}}",
        *("에서", "에게", "에", "의", "도", "만", "까지", "부터", "보다", "처럼", "하고", "한테"),
    ),
)


def singular(word: str) -> str:
    """Return a word without plural ending, particles or article; still a readable beginning."""
    if word.isascii():
        return _first_replaced(word, _PLURAL_ENDINGS) if word.endswith("s") else word
    endings = _of_its_script(word)
    while endings and (bare := _first_replaced(word, endings)) != word:  # particles come in a row
        word = bare
    return word


def _of_its_script(word: str) -> _Endings:
    if "\u1100" <= word[0] <= "\u1112":
        return _PARTICLES
    return _ARTICLES if "\u0620" <= word[0] <= "\u064a" else ()


@functools.lru_cache(maxsize=STEMS_CACHED_MAX)
def stem(word: str) -> str:
    """Return the common stem of all forms of a noun; not itself a word."""
    one = singular(word)
    return _first_replaced(one, _UNITED_ENDINGS) if one.endswith(_UNITED) else one


def _first_replaced(word: str, endings: _Endings) -> str:
    for pattern, replacement in endings:
        replaced, count = pattern.subn(replacement, word)
        if count:
            return replaced
    return word
