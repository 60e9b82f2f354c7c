"""How text becomes words: the same for names and queries, whatever a user writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.domain.order import from_micros
from polyglot_persistence.domain.text import (
    QUERY_WORDS_MAX,
    WORD_CHARACTERS_MAX,
    Ranking,
    parse_query,
    singular,
    stem,
    words,
)

START = from_micros(1_763_863_562_123_456)


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


@pytest.mark.parametrize(
    "forms",
    ["berry berries berrys", "cookie cookies", "loaf loaves", "knife knives", "olive olives",
     "peach peaches", "tomato tomatoes", "shoe shoes", "glass glasses", "box boxes", "fry fries",
     "pie pies", "lb lbs", "egg eggs", "turkey turkeys", "cheese cheeses", "kiwi kiwis", "gas"],
)  # fmt: skip
def test_forms_of_a_noun_have_one_stem(forms: str) -> None:
    """Singular, plural and the common misspellings of the plural."""
    assert len({stem(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    "others",
    ["can cane", "bar bare", "plan plane", "rice ricotta", "bus bu", "organ organic", "past paste",
     "general generic", "glass glas", "1 1s", "pea peach"],
)  # fmt: skip
def test_other_words_have_other_stems(others: str) -> None:
    """Uniting two words would find the wrong orders first."""
    left, right = others.split()
    assert stem(left) != stem(right)


@pytest.mark.parametrize(
    ("plural", "one"), [("berries", "berry"), ("lbs", "lb"), ("yes", "yes"), ("brass", "brass")]
)
def test_a_singular_can_be_read(plural: str, one: str) -> None:
    """It is looked for as a prefix, so it has to be one."""
    assert singular(plural) == one


def test_a_query_is_its_distinct_words() -> None:
    """With how each may be misspelt: not at all if short or a number."""
    query = parse_query("Berries berry OZ 12345678 strawberries milk")
    assert [(word.stem, word.typos_max) for word in query] == [
        ("berri", 1),
        ("oz", 0),
        ("12345678", 0),
        ("strawberri", 2),
        ("milk", 1),
    ]
    assert query[0].prefixes == ("berries", "berry")


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_has_words(text: str) -> None:
    """Nothing raises; words are bounded, without a blank, and words of themselves."""
    found = words(text)
    assert all(0 < len(word) <= WORD_CHARACTERS_MAX for word in found)
    assert " ".join(found).split() == found
    for word in found:
        word.encode()
        assert stem(word)
    assert len(parse_query(text)) <= QUERY_WORDS_MAX


@given(st.text(max_size=100))
def test_case_does_not_matter(text: str) -> None:
    """What is written in small letters is found by capitals, and the other way round."""
    assert words(text.lower()) == words(text) == words(text.upper())


def test_a_rank_can_be_taken_apart() -> None:
    """Fewer typos always win, then more exact words; scores say so from above 0 to 1."""
    for count in range(1, QUERY_WORDS_MAX + 1):
        ranking = Ranking(count)
        ranks = {
            (unmisspelt, exact): unmisspelt * ranking.unmisspelt + exact * ranking.exact
            for unmisspelt in range(count + 1)
            for exact in range(unmisspelt + 1)
        }
        assert sorted(ranks, key=ranks.__getitem__) == sorted(ranks)
        assert all(ranking.parts(float(rank)) == parts for parts, rank in ranks.items())
        assert 0 < ranking.score(0) < ranking.score(max(ranks.values())) == 1
