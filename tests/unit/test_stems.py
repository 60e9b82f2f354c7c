"""Forms of a noun have one stem, and other nouns have others."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.domain.search.stems import singular, stem
from polyglot_persistence.domain.search.text import words


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


def folded(word: str) -> str:
    """Return the only word of a text as an index has it."""
    [found] = words(word)
    return found


@pytest.mark.parametrize(
    "forms",
    [
        "\uae40\uce58 \uae40\uce58\ub97c \uae40\uce58\uac00 \uae40\uce58\ub294",  # 김치
        "\uae40\uce58 \uae40\uce58\uc640 \uae40\uce58\uc758 \uae40\uce58\ub3c4",  # 김치
        "\uae40\uce58 \uae40\uce58\ub9cc \uae40\uce58\uc5d0\ub294",  # 김치
        "\uae40\uce58 \uae40\uce58\uc5d0\uc11c\ub3c4",  # 김치
        "\ucee4\ud53c \ucee4\ud53c\ub97c \ucee4\ud53c\ub85c \ucee4\ud53c\uae4c\uc9c0",  # 커피
        "\ub77c\uba74 \ub77c\uba74\uc744 \ub77c\uba74\uc774 \ub77c\uba74\uacfc",  # 라면
        "\ub77c\uba74 \ub77c\uba74\uc73c\ub85c \ub77c\uba74\ubd80\ud130",  # 라면
        "\ubb3c \ubb3c\uc744 \ubb3c\uc740",  # 물
        "\uc11c\uc6b8 \uc11c\uc6b8\ub85c",  # 서울
        "\u0642\u0647\u0648\u0629 \u0627\u0644\u0642\u0647\u0648\u0629",  # قهوة
        "\u0642\u0647\u0648\u0629 \u0648\u0627\u0644\u0642\u0647\u0648\u0629",  # قهوة
        "\u0642\u0647\u0648\u0629 \u0628\u0627\u0644\u0642\u0647\u0648\u0629",  # قهوة
        "\u0642\u0647\u0648\u0629 \u0642\u0647\u0648\u0647",  # قهوة
        "\u0634\u0627\u064a \u0627\u0644\u0634\u0627\u064a \u0644\u0644\u0634\u0627\u064a",  # شاي
        "\u0634\u0627\u064a \u0634\u0640\u0640\u0627\u064a \u0634\u0627\u06cc",  # شاي
        "\u0628\u0646 \u0627\u0644\u0628\u0646",  # بن
    ],
)
def test_particles_and_articles_are_no_part_of_a_noun(forms: str) -> None:
    """Korean ones behind it, the Arabic one before it."""
    assert len({stem(folded(form)) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    "noun",
    ["\uc0ac\uacfc", "\ud3ec\ub3c4", "\ud734\uac00", "\uae30\uc640", "\ub9c8\uc744",
     "\uac00\uc744", "\uac70\uc758", "\ub300\ub9cc", "\u0645\u0627\u0644"],
)  # fmt: skip
def test_nouns_that_end_like_a_particle_stay(noun: str) -> None:
    """사과, 포도, 휴가, 기와, 마을, 가을, 거의, 대만; مال."""
    assert stem(folded(noun)) == folded(noun)


LETTERS = "asexi\u0627\u0644\u0648\uc5d0\ub294\ub3c4\uc744\uc774\uae40\uce58"


@given(st.text(LETTERS, max_size=8))
def test_a_singular_has_no_other_singular(text: str) -> None:
    """Else a name that begins like a query would not be found as what it equals."""
    word = unicodedata.normalize("NFKD", text)
    assert singular(singular(word)) == singular(word)
