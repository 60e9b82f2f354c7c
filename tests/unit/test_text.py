"""How text becomes words: the same for names and queries, whatever a user writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.domain.search.text import WORD_CHARACTERS_MAX, located_words, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SFT DRNK 12/18&15PK CAN", "sft drnk 12 18 15 pk can"),
        ("Kellogg's CORN-FLAKES\u2122 16oz", "kelloggs corn flakes 16 oz"),
        ("Cr\u00e8me Br\u00fbl\u00e9e, S\u00f8ren & Stra\u00dfe", "creme brulee soren strasse"),
        ("I\u0307\u0130\u0131", "iii"),
        ("\uff2d\uff49\uff4c\uff4b \u2460 \ufb01sh", "milk 1 fish"),
        ("\U0001f353\U0001f3fd\u200d\U0001f353\ufe0f", "\U0001f353 \U0001f353"),
        ("\u3044\u3061\u3054", "\u3044 \u3061 \u3053\u3099"),
        ("\u0926\u093e\u0932 \u0926\u093f\u0932", "\u0926\u093e\u0932 \u0926\u093f\u0932"),
        ("\u0e02\u0e49\u0e32\u0e27", "\u0e02\u0e49 \u0e32 \u0e27"),
        ("\u1780\u17b6 \u1780\u17b7", "\u1780\u17b6 \u1780\u17b7"),
        ("\u0b95\u0bbe\u0baa\u0bbf", "\u0b95\u0bbe\u0baa\u0bbf"),
        ("\u0643\u064e\u062a\u064e\u0628", "\u0643\u062a\u0628"),
        ("\u0661\u0662", "12"),
        ("\u041c\u043e\u043b\u043e\u043a\u043e", "\u043c\u043e\u043b\u043e\u043a\u043e"),
        ("\x00 \ud800 \u2028 !?", ""),
    ],
)
def test_words_of_a_text(text: str, found: str) -> None:
    """Case, accents, widths and punctuation are gone; digits and letters are parted."""
    assert " ".join(words(text)) == found


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_has_words(text: str) -> None:
    """Nothing raises; words are bounded, without a blank, and are where they say."""
    found = words(text)
    assert all(0 < len(word) <= WORD_CHARACTERS_MAX for word in found)
    assert " ".join(found).split() == found
    for word in found:
        word.encode()
    for located in located_words(text):
        assert words(text[located.start : located.end]).count(located.word) > 0


@given(st.text(max_size=100))
def test_case_does_not_matter(text: str) -> None:
    """What is written in small letters is found by capitals, and the other way round."""
    assert words(text.lower()) == words(text) == words(text.upper())


@given(st.text(st.sampled_from("aAbz019'+#. -"), max_size=40))
def test_ascii_is_read_like_any_other_text(text: str) -> None:
    """There is a faster way for it, which must not differ."""
    beyond = located_words(f"{text} \u00e9\u00e9")  # no single letter: `C # e` is no C#
    assert located_words(text) == [word for word in beyond if word.start <= len(text)]


@pytest.mark.parametrize(
    ("text", "spellings"),
    [
        ("M\u00fcsli", "musli muesli"),
        ("Mu\u0308sli", "musli muesli"),
        ("\u00d6l", "ol oel"),
        ("\u00c4pfel", "apfel aepfel"),
        ("Sm\u00f8rrebr\u00f8d", "smorrebrod smoerrebroed"),
        ("\u00c5l", "al aal"),
        ("Stra\u00dfe", "strasse"),
        ("No\u00ebl", "noel"),
        ("aero", "aero"),
        ("blue", "blue"),
        ("\u0439\u0308", "\u0438"),
    ],
)
def test_umlauts_have_two_spellings(text: str, spellings: str) -> None:
    """Only they: what is typed as two letters has one."""
    assert [" ".join(word.spellings) for word in located_words(text)] == [spellings]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("C++ Primer", "c++"),
        ("C++17", "c++"),
        ("c\uff0b\uff0b", "c++"),
        ("C#, F# (new)", "c# f#"),
        ("C\u266f", "c#"),
        (".NET 8", ".net"),
        ("(.Net)", ".net"),
        ("Grade A+", "a+"),
        ("Notepad++", "notepad++"),
        ("\u00d6l+", "ol+ oel+"),
        ("C ++ Primer, c #, f # basics, g  ++", "c++ c# f# g++"),
        ("size L # 5, a # b, notepad ++, vitamin c + d, cc #, b ++c", ""),
        ("+ # . ++ a + b # c", ""),
        ("salt+pepper item#5 ASP.NET node.js ...and .5 50+ #tag end.", ""),
        ("\u9152+ \U0001f353+", ""),
    ],
)
def test_signs_of_a_word(text: str, found: str) -> None:
    """At the end, or a dot before it; not where they part two words or stand alone."""
    assert " ".join(one for word in located_words(text) for one in word.with_signs) == found
