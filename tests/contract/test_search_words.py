"""Which names a text finds, over every adapter."""

from polyglot_persistence.ports.search import SearchIndex
from tests.support.search_indexes import asked, fill, names_found


async def test_forms_of_a_word_find_it(index: SearchIndex) -> None:
    """Case, accents, plurals, punctuation, typos and order of words do not matter."""
    name = "STRAWBERRIES ORGANIC 16 OZ"
    await fill(index, name, "BLUEBERRIES 16 OZ", "Straw hat")
    for query in (
        "STRAWBERRIES",
        "strawberry",
        "Strawberrys",
        "strwberries",
        "sttrawberries",
        "starwberries",
        "  -strawberries!! ",
        "straw",
        "str\u00e4wberr\u00eees",
        "organic strawberries",
        "STRAWBERRIES (ORGANIC), 16oz",
        "16 oz strawberries",
    ):
        assert name in await names_found(index, query), query


async def test_scripts_and_signs_are_folded(index: SearchIndex) -> None:
    """What a reader takes for the same is the same, in a name as in a query."""
    folded = {
        "creme brulee": "Cr\u00e8me Br\u00fbl\u00e9e",
        "strasse": "Stra\u00dfe",
        "smorrebrod": "Sm\u00f8rrebr\u00f8d",
        "kelloggs": "Kellogg\u2019s\u2122",
        "loaves": "LOAF",
        "cookie": "COOKIES",
        "\u3044\u3061": "\u3044\u3061\u3054",
        "\U0001f353": "\U0001f353\ufe0f",
        "\u0661\u0662": "12 ct",
        "\uff4d\uff49\uff4c\uff4b": "milk",
    }
    await fill(index, *folded.values())
    for query, name in folded.items():
        assert await names_found(index, query) == [name]
        assert await names_found(index, name) == [name]


async def test_words_joined_signed_spelt_out_or_within_others_are_found(
    index: SearchIndex,
) -> None:
    """By what a shopper types, each in its own way, and nothing else by it."""
    names = [
        "Wi-Fi Router", "WiFi Extender", "Head Phones", "Headphones Stand", "E-Book Reader",
        "C++ Primer", "C# in Depth", "USB-C Cable", "Pro .NET", "Fishing Net", "Grade A+ Honey",
        "\u00d6l 1L", "M\u00fcslischale", "Muesli Bircher", "Stra\u00dfenkarte", "Aero Bar",
        "Kaffeemaschine", "Wein-Regal", "\uae40\uce58\ucc0c\uac1c", "\uae40\uce58 \ub9cc\ub450",
        "\u0627\u0644\u0642\u0647\u0648\u0629", "\u0642\u0647\u0648\u0629 1", "\u7eff\u8336\u5305",
    ]  # fmt: skip
    await fill(index, *names)
    found = {
        "wifi": [0, 1], "wi-fi": [0, 1], "wifi router": [0], "headphone": [2, 3],
        "head phones": [2, 3], "ebook": [4], "c++": [5], "c#": [6], "c++ primer": [5],
        "primer c": [5], ".net": [8, 9], "a+": [10], "+": [], "oel": [11], "\u00f6l": [11],
        "muesli": [12, 13], "m\u00fcsli": [12, 13], "strasse": [14], "aero": [15], "aro": [],
        "maschine": [16], "kaffee maschine": [16], "weinregal": [17], "regal": [17],
        "\ucc0c\uac1c": [18], "\uae40\uce58\ub97c": [18, 19], "\uae40\uce58 \ucc0c\uac1c": [18],
        "\u0642\u0647\u0648\u0629": [20, 21], "\u0627\u0644\u0642\u0647\u0648\u0629": [20, 21],
        "\u8336": [22],
    }  # fmt: skip
    for query, places in found.items():
        wanted = sorted(names[place] for place in places)
        assert sorted(await names_found(index, query)) == wanted, query


async def test_signs_side_by_side_come_first(index: SearchIndex) -> None:
    """In the asked order, in scripts without spaces; elsewhere in a name they are found after."""
    ranked = {
        "上海": ["上海牌手表", "海上钢琴师"],
        "抹茶ラテ": ["抹茶ラテ 12本", "ラテ 抹茶"],
        "กาแฟ": ["กาแฟสด", "แฟกา"],
        "ကော်ဖီ": ["ကော်ဖီမှုန့်", "ဖီကော်"],
        "c ++": ["C++ Primer"],
        "c++": ["C++ Primer"],
    }
    # The best are the oldest, and of equal ranks the newest come first.
    best = [names[0] for names in ranked.values()]
    others = [names[1] for names in ranked.values() if len(names) > 1]
    await fill(index, *dict.fromkeys(best), "USB-C", *others)
    for query, names in ranked.items():
        assert await names_found(index, query) == names, query
        first = await index.search(asked(query, 1))
        assert [hit.order.product_name for hit in first.hits] == names[:1], query
    assert sorted(await names_found(index, "海")) == sorted(ranked["上海"])


async def test_numbers_and_names_of_articles_are_found(index: SearchIndex) -> None:
    """However they are written."""
    names = {
        "AB-1234 Hinge": ["AB-1234", "AB1234", "ab 1234", "1234"],
        "7-Up": ["7UP", "7 up", "7-up"],
        "Jack 3.5mm": ["3.5 mm", "3.5mm jack"],
        "The Who": ["the who", "who"],
        "O\u2019Neill": ["oneill", "O'Neill", "o\u02bcneill"],
        "\u0130stanbul": ["istanbul", "ISTANBUL", "\u0130STANBUL"],
        "Is\u0131t\u0131c\u0131": ["isitici", "ISITICI", "\u0131s\u0131t\u0131c\u0131"],
        "\u0110\u1ed3ng h\u1ed3": ["dong ho", "\u0111\u1ed3ng h\u1ed3"],
        "\u65e5\u672c\u9152": ["\u65e5\u672c\u9152", "\u9152", "\u65e5\u672c"],
        "\u30b3\u30fc\u30d2\u30fc": ["\uff7a\uff70\uff8b\uff70"],
        "\u00bd inch": ["1/2 inch", "\u00bd"],
        "\u21165 Parfum": ["no5", "\u2116 5", "No.5"],
        "\U0001f469\u200d\U0001f373 apron": ["\U0001f469\u200d\U0001f373", "\U0001f373"],
    }
    await fill(index, *names)
    for name, queries in names.items():
        for query in queries:
            assert name in await names_found(index, query), query
