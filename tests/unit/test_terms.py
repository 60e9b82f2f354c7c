"""What a name offers and a query looks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.domain.search.matching import highlighted, rank_of
from polyglot_persistence.domain.search.ranking import Ranking, Tier
from polyglot_persistence.domain.search.terms import (
    JOINED_QUERY_TERMS_MAX,
    QUERY_WORDS_MAX,
    name_terms,
    parse_query,
)

NAME_CHARACTERS_MAX = 200


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
    assert query[0].parts == ("berries", "berry", "berri")
    assert query[1].parts == query[2].parts == ()


@pytest.mark.parametrize(
    ("name", "words", "exact", "parts"),
    [
        ("Wi-Fi Router", "wi fi router", "wi fi router wifi wifirouter firouter", ""),
        ("16 OZ", "16 oz", "16 oz", ""),
        ("Kaffeedosen", "kaffeedosen", "kaffeedosen", "feedosen eedosen edosen dosen osen"),
        ("\u00d6l", "ol oel", "ol oel", ""),
        ("C++ 5", "c c++ 5", "c c++ 5", ""),
        ("C ++ 5", "c c++ 5", "c c++ 5", ""),
        ("日本酒", "日 本 酒", "日 本 酒 日本 本酒", ""),
        ("緑茶 ラテ", "緑 茶 ラ テ", "緑 茶 ラ テ 緑茶 茶ラ ラテ", ""),
        ("กาแฟ 3 ก", "ก า แ ฟ 3", "ก า แ ฟ 3 กา าแ แฟ", ""),
        ("酒, 水 1 茶", "酒 水 1 茶", "酒 水 1 茶", ""),
    ],
)
def test_terms_of_a_name(name: str, words: str, exact: str, parts: str) -> None:
    """Words, what is found exactly, and parts."""
    assert [" ".join(terms) for terms in name_terms(name)] == [words, exact, parts]


@pytest.mark.parametrize(
    ("query", "name", "tier"),
    [
        ("wifi", "Wi-Fi Router", Tier.EXACT),
        ("wi-fi", "WiFi Extender", Tier.EXACT),
        ("head phone", "Headphones", Tier.EXACT),
        ("headphones", "Head Phone", Tier.EXACT),
        ("headfones", "Head Phones", Tier.TYPO),
        ("kaffeevollautomat", "Kaffee-Voll-Automat", Tier.EXACT),
        ("muesliriegel", "M\u00fcsli-Riegel", Tier.EXACT),
        ("pinea", "Pin Earring", None),
        ("35", "3.5 mm", None),
        ("c++", "C++", Tier.EXACT),
        ("c++", "C#", None),
        ("c ++", "C++", Tier.EXACT),
        ("c++", "C ++ Primer", Tier.EXACT),
        ("c  ++", "Vitamin C", None),
        ("c #", "C# in Depth", Tier.EXACT),
        ("g ++", "G", None),
        ("l # 5", "Size L 5", Tier.EXACT),
        ("vitamin c + d", "Vitamin C D", Tier.EXACT),
        ("notepad ++", "Notepad", Tier.EXACT),
        ("上海", "上海牌", Tier.EXACT),
        ("上海", "海上", Tier.BEGINNING),
        ("上海", "上 海", Tier.EXACT),
        ("海", "上海", Tier.EXACT),
        ("京都", "東京 京都", Tier.EXACT),
        ("コーヒー", "アイスコーヒー", Tier.EXACT),
        ("ကော်ဖီ", "ကော်ဖီ", Tier.EXACT),
        ("c++", "USB-C", None),
        ("c", "C++", Tier.EXACT),
        ("not", "Notepad++", Tier.BEGINNING),
        ("notepad+", "Notepad++", Tier.BEGINNING),
        ("disney+", "Disney", Tier.TYPO),
        ("salt+pepper", "Salt & Pepper", Tier.EXACT),
        (".net", "Fishing net", Tier.TYPO),
        ("oel", "\u00d6l", Tier.EXACT),
        ("\u00d6l", "Oel", Tier.EXACT),
        ("ol", "\u00d6l", Tier.EXACT),
        ("aro", "Aero", None),
        ("muesli", "M\u00fcslischale", Tier.BEGINNING),
        ("maschine", "Kaffeemaschinen", Tier.PART),
        ("maschinen", "Kaffeemaschine", None),
        ("berry", "Strawberries", Tier.PART),
        ("land", "Islands", None),
        ("ice", "Licorice", None),
        ("\ucc0c\uac1c", "\uae40\uce58\ucc0c\uac1c", Tier.PART),
        ("\uae40\uce58\ub97c", "\uae40\uce58\ucc0c\uac1c", Tier.BEGINNING),
        ("\uae40\uce58 \ucc0c\uac1c", "\uae40\uce58\ucc0c\uac1c", Tier.EXACT),
        ("\u0627\u0644\u0642\u0647\u0648\u0629", "\u0642\u0647\u0648\u0629", Tier.EXACT),
        ("\u0642\u0647\u0648", "\u0627\u0644\u0642\u0647\u0648\u0629", Tier.BEGINNING),
    ],
)
def test_how_a_query_matches_a_name(query: str, name: str, tier: Tier | None) -> None:
    """All words of it in the same way, or not at all."""
    asked = parse_query(query)
    rank = len(asked) * Ranking(len(asked)).weights[tier] if tier else 0
    assert rank_of(name, asked) == rank
    assert ("<mark>" in highlighted(name, asked)) == (tier is not None)


@pytest.mark.parametrize(
    ("query", "beside", "apart"),
    [
        ("上海", "上海", "海上"),
        ("上海", "東方上海牌", "海 上"),
        ("抹茶ラテ", "抹茶ラテ", "ラテ抹茶"),
        ("コーヒー", "アイスコーヒー", "ヒーコー"),
        ("กาแฟ", "กาแฟสด", "แฟกา"),
        ("ข้าวหอม", "ข้าวหอมมะลิ", "หอมข้าว"),
        ("ကော်ဖီ", "ကော်ဖီမှုန့်", "ဖီကော်"),
        ("ນ້ຳປາ", "ນ້ຳປາ", "ປານ້ຳ"),
        ("sony 東京 3", "Sony 3 東京", "Sony 3 京東"),
        ("東京 大阪", "大阪 東京", "東大京阪"),
    ],
)
def test_signs_side_by_side_in_the_asked_order_come_first(
    query: str, beside: str, apart: str
) -> None:
    """In scripts without spaces; found they are elsewhere, too."""
    asked = parse_query(query)
    assert rank_of(beside, asked) == Ranking(len(asked)).rank_max > rank_of(apart, asked) > 0


@pytest.mark.parametrize(
    ("query", "name", "shown"),
    [
        ("wifi", "Wi-Fi Router", "<mark>Wi-Fi</mark> Router"),
        ("wi-fi", "WiFi Router", "<mark>WiFi</mark> Router"),
        ("wi-fi", "Wi-Fi Router", "<mark>Wi</mark>-<mark>Fi</mark> Router"),
        ("peanut butter", "Peanut butter", "<mark>Peanut</mark> <mark>butter</mark>"),
        ("wifi router", "Wi-Fi Router", "<mark>Wi-Fi</mark> <mark>Router</mark>"),
        ("m\u00fcsli", "M\u00fcslischale", "<mark>M\u00fcsli</mark>schale"),
        ("c++", "C & C++ Primer", "C &amp; <mark>C++</mark> Primer"),
        (".net", "Net .NET", "Net <mark>.NET</mark>"),
        ("maschine", "Kaffeemaschinen", "Kaffee<mark>maschine</mark>n"),
        ("muesli", "M\u00fcsli", "<mark>M\u00fcsli</mark>"),
        ("c ++", "C & C ++ Primer", "C &amp; <mark>C ++</mark> Primer"),
        ("上海", "海 上海", "海 <mark>上海</mark>"),
        ("上海", "海上", "<mark>海</mark><mark>上</mark>"),
    ],
)
def test_what_matches_is_marked(query: str, name: str, shown: str) -> None:
    """All that a joined word was made of, the signs, and of a compound the part."""
    assert highlighted(name, parse_query(query)) == shown


@given(
    st.text(
        st.characters(codec=None) | st.sampled_from("abc\u00fc -+"), max_size=NAME_CHARACTERS_MAX
    )
)
def test_what_a_name_or_a_query_costs_is_bounded(text: str) -> None:
    """Whatever is written; and each name is found exactly by itself, if it has few words."""
    terms = name_terms(text)
    letters = max(1, sum(map(len, terms.words)))
    assert len(terms.exact) <= 3 * 2 * letters
    assert sum(map(len, terms.parts)) <= 20 * letters
    query = parse_query(text)
    assert len(query) <= QUERY_WORDS_MAX
    for word in query:
        assert len(word.exact) <= JOINED_QUERY_TERMS_MAX + 2
        assert len(word.prefixes) <= 4
        assert len(word.parts) <= 6
    assert rank_of(text, query) == Ranking(len(query)).rank_max


def test_a_name_of_nothing_but_the_worst_is_bounded() -> None:
    """Words just short enough to be taken apart, and many of one letter."""
    for name in (" ".join(["abcdefghij" * 4] * 5)[:200], " ".join("abcdefghij" * 10)[:200]):
        terms = name_terms(name)
        assert sum(map(len, (*terms.exact, *terms.parts))) < 10 * NAME_CHARACTERS_MAX
