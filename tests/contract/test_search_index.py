"""What the search port promises, held against every adapter on its real engine."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from polyglot_persistence.domain.order import AMOUNT_MAX, Order, new_id
from polyglot_persistence.domain.search.query import COUNTED_ORDERS_MAX, SearchQuery, Sort, position
from polyglot_persistence.domain.search.ranking import Ranking
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import SearchIndex
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.search_indexes import (
    VISIBLE_SECONDS,
    SearchEngine,
    asked,
    fill,
    names_found,
    row,
    visible,
)
from tests.support.search_model import expected


async def refused(index: SearchIndex) -> None:
    """Fail if a search is answered."""
    try:
        await index.search(asked("milk", 10))
    except UnavailableError:
        return
    raise AssertionError("a search was answered")


# --- the index and its absence ---------------------------------------------------------------


async def test_a_missing_index_is_never_an_empty_success(engine: SearchEngine) -> None:
    """Whatever needs the index says that it is not there."""
    index = engine.process()
    assert await index.exists() is False
    for call in (
        index.search(asked("milk", 10)),
        index.search(asked("", 10)),
        index.indexed_at(new_id()),
        index.count(),
        index.index([row("Milk")]),
        index.ping(),
    ):
        with pytest.raises(UnavailableError):
            await call
    assert await index.exists() is False  # nothing of this made one


async def test_ensure_creates_what_is_missing_and_nothing_else(engine: SearchEngine) -> None:
    """It says whether there was nothing, and leaves alone what there is."""
    index = engine.process()
    assert await index.ensure() is True
    assert await index.exists() is True
    assert (await index.search(asked("milk", 10))).total == 0
    await fill(index, "Milk")
    assert await index.ensure() is False
    assert await index.count() == 1


async def test_of_several_processes_one_creates_the_index(engine: SearchEngine) -> None:
    """Two that start at the same moment end up with the same index."""
    processes = [engine.process() for _ in range(4)]
    created = await asyncio.gather(*(process.ensure() for process in processes))
    assert sorted(created) == [False, False, False, True]
    await processes[0].index([row("Milk")])
    for process in processes:
        await visible(process, 1)


async def test_a_wiped_index_is_noticed_and_made_anew(
    engine: SearchEngine, index: SearchIndex
) -> None:
    """Both its writer and its readers notice, and go on with the new one without a restart."""
    reader = engine.process()
    await fill(index, "Milk", "Bread")
    await visible(reader, 2)
    await engine.wipe()

    await eventually(lambda: refused(reader), within_seconds=VISIBLE_SECONDS)
    assert await index.exists() is False
    with pytest.raises(UnavailableError):
        await index.index([row("Butter")])
    assert await index.ensure() is True
    await fill(index, "Butter")
    await visible(reader, 1)
    assert await names_found(reader, "butter") == ["Butter"]


async def test_an_index_of_an_older_version_is_not_used_but_replaced(
    engine: SearchEngine, index: SearchIndex
) -> None:
    """Its words may be others, so its answers would be wrong."""
    await fill(index, "Milk")
    await engine.make_foreign(form=1)
    for process in (index, engine.process()):
        assert await process.exists() is False
        with pytest.raises(UnavailableError):
            await process.index([row("Bread")])
    assert await index.ensure() is True
    await fill(index, "Butter")
    assert await names_found(index, "milk") == []


async def test_an_index_of_a_newer_version_is_left_alone(
    engine: SearchEngine, index: SearchIndex
) -> None:
    """It is not missing: an old process in an upgrade must not replace what a new one made."""
    await fill(index, "Milk")
    await engine.make_foreign(form=1_000_000)
    for call in (index.exists(), index.ensure(), index.index([row("Bread")]), index.ping()):
        with pytest.raises(UnavailableError, match="newer version"):
            await call
    await eventually(lambda: refused(index), within_seconds=VISIBLE_SECONDS)


async def test_a_closed_index_refuses(engine: SearchEngine, index: SearchIndex) -> None:
    """Closing is for good, twice is no error, and other processes go on."""
    other = engine.process()
    await fill(index, "Milk")
    for _ in range(2):
        await engine.end(index)
    for call in (index.search(asked("milk", 10)), index.index([row("Milk")]), index.count()):
        with pytest.raises(UnavailableError):
            await call
    assert await other.index([row("Milk")]) == []
    await visible(other, 2)


async def test_ping_tells_the_version(index: SearchIndex) -> None:
    """It names product and version."""
    product, version = (await index.ping()).version.split()
    assert product.isalpha()
    assert version[0].isdigit()


# --- indexing --------------------------------------------------------------------------------


async def test_a_hit_is_the_order_as_it_was_indexed(index: SearchIndex) -> None:
    """To the cent, the microsecond and the character."""
    orders = [
        Order(new_id(), "Apfel \u2028 1", Decimal("0.00"), START),
        Order(new_id(), "Apfel \U0001f34e \u00e4\ufb01 2", AMOUNT_MAX, START),
        Order(UUID(int=0), "Apfel 3", Decimal("0.01"), datetime.min.replace(tzinfo=UTC)),
        Order(UUID(int=2**128 - 1), "Apfel " * 33, Decimal("0.10"), START),
        Order(new_id(), "apfel", Decimal("1.15"), datetime.max.replace(tzinfo=UTC)),
    ]
    assert await index.index([StoredOrder(order, START, START) for order in orders]) == []
    await visible(index, 5)
    found = await index.search(asked("apfel", 10))
    assert {hit.order.id: hit.order for hit in found.hits} == {o.id: o for o in orders}
    assert all(str(hit.order.amount).split(".")[1:] for hit in found.hits)  # two decimals


async def test_indexing_again_replaces(index: SearchIndex) -> None:
    """Also within one batch, and with another batch of the same orders under way."""
    rows = [row(f"Milk {n}") for n in range(20)]
    await index.index([*rows, *rows])
    await asyncio.gather(*(index.index(rows[n:]) for n in range(4)))
    await index.index([row("Milk bottle", order_id=rows[0].order.id)])

    async def replaced() -> None:
        found = await index.search(asked("milk", 100))
        assert found.total == len(found.hits) == 20
        assert "Milk bottle" in [hit.order.product_name for hit in found.hits]

    await eventually(replaced, within_seconds=VISIBLE_SECONDS)
    assert await index.count() == 20


async def test_indexed_at_is_told_of_what_a_search_finds(index: SearchIndex) -> None:
    """Not of an unknown order, and never before it can be found."""
    before = datetime.now(UTC)
    rows = await fill(index, "Milk", "Bread")
    for one in rows:
        indexed_at = await index.indexed_at(one.order.id)
        assert indexed_at is not None
        assert before <= indexed_at <= datetime.now(UTC)
    assert await index.indexed_at(new_id()) is None


async def test_other_processes_see_it_within_about_a_second(
    engine: SearchEngine, index: SearchIndex
) -> None:
    """Also those that looked just before."""
    reader = engine.process()
    for n in range(3):
        assert await reader.count() == n
        one = row("Milk", n)
        await index.index([one])
        await visible(reader, n + 1)
        assert await reader.indexed_at(one.order.id) is not None


async def test_what_can_never_be_indexed_goes_alone(index: SearchIndex) -> None:
    """With its reason, and without its neighbours."""
    bad = row("Milk \ud800")  # no UTF-8 has it; the edge refuses it, were it not for a bug
    failures = await index.index([row("Milk 1"), bad, row("Milk 2")])
    assert [failure.order_id for failure in failures] == [bad.order.id]
    assert "surrogate" in failures[0].reason
    await visible(index, 2)


async def test_large_batches_and_names_are_taken(index: SearchIndex) -> None:
    """Thousands of documents in a call, with names of as many words as fit."""
    rows = [row(" ".join(f"{n * 97 % 89:x}{k:x}" for k in range(50))[:200], n) for n in range(3000)]
    for found in await asyncio.gather(*(index.index(rows[n::2]) for n in range(2))):
        assert found == []
    await visible(index, 3000)


async def test_nothing_to_index_is_nothing_to_do(index: SearchIndex) -> None:
    """An empty batch succeeds."""
    assert await index.index([]) == []
    assert await index.count() == 0


async def test_a_cancelled_caller_disturbs_no_other(index: SearchIndex) -> None:
    """Neither another search nor another batch."""
    await fill(index, "Milk")
    searches = [asyncio.create_task(index.search(asked("milk", 10))) for _ in range(20)]
    batches = [asyncio.create_task(index.index([row("Bread", n)])) for n in range(4)]
    await asyncio.sleep(0)
    for task in (*searches[::2], *batches[::2]):
        task.cancel()
    for search in searches[1::2]:
        assert (await search).total == 1
    for batch in batches[1::2]:
        assert await batch == []
    await asyncio.gather(*searches, *batches, return_exceptions=True)

    async def found() -> None:
        assert (await index.search(asked("bread", 10))).total >= 2

    await eventually(found, within_seconds=VISIBLE_SECONDS)


# --- searching -------------------------------------------------------------------------------


async def test_every_word_must_match(index: SearchIndex) -> None:
    """More words find less."""
    await fill(index, "White bread", "White wine", "Rye bread")
    assert await names_found(index, "white bread") == ["White bread"]
    assert await names_found(index, "white rye") == []
    assert await names_found(index, "bread nonsense") == []


async def test_exact_goes_before_beginning_before_part_before_typo(index: SearchIndex) -> None:
    """The newest is the typo and the oldest the exact match, and still."""
    names = ["Butter", "Buttermilk", "Peanutbutter", "Better"]
    await fill(index, *names)
    found = await index.search(asked("butter", 10))
    assert [hit.order.product_name for hit in found.hits] == names
    ranking = Ranking(1)
    ranks = [hit.rank for hit in found.hits]
    assert ranks == sorted(ranking.weights.values(), reverse=True)
    assert ranks[0] == ranking.rank_max


async def test_between_equals_the_newer_order_goes_first(index: SearchIndex) -> None:
    """Whatever the rest of its name, so that the answer is the same each time."""
    await fill(index, "Milk", "Chocolate milk", "MILK", "Milkshake", "Milk of the day")
    found = (await index.search(asked("milk", 10))).hits
    assert [hit.order.created_at - START for hit in found] == [
        timedelta(seconds=second) for second in (4, 2, 1, 0, 3)
    ]


async def test_ties_are_broken_by_id_however_many(index: SearchIndex) -> None:
    """A bulk has one name and one moment; the first hits are the same each time."""
    rows = [row("Milk") for _ in range(150)]
    for part in range(3):  # several segments
        await index.index(rows[part::3])
    await visible(index, 150)
    best = sorted((one.order.id for one in rows), reverse=True)
    for query in ("milk", "milkk"):
        for hits_max in (1, 7, 100):
            found = await index.search(asked(query, hits_max))
            assert found.total == 150
            assert [hit.order.id for hit in found.hits] == best[:hits_max]


ODD_QUERIES = [
    "", " ", "!?", '"', "\x00", "\ud800", "AND", "OR NOT", "product_name:milk", "*", "mil*", "?",
    "/.*/", "milk~2", "milk^9", "(milk", "[a TO b]", "{}", "\\", "milk AND", "-milk", "+", "&&",
    "_exists_:id", '{"match_all":{}}', "<script>", "%", "\U0001f353" * 50, "\u202emilk",
    "a" * 10_000, "a " * 5_000, "wort" * 2_500, "\u0301" * 300, "\ufdfa" * 200, "1" * 400,
]  # fmt: skip


async def test_any_text_is_a_query(index: SearchIndex) -> None:
    """Nothing is syntax: the answer is what the words in it find."""
    orders = [one.order for one in await fill(index, "Milk", "And now")]
    for query in ODD_QUERIES:
        found = await index.search(asked(query, 10))
        assert [hit.order.id for hit in found.hits] == expected(orders, query), query
        assert found.total == len(found.hits)


async def test_a_query_without_a_word_finds_nothing(index: SearchIndex) -> None:
    """Not everything."""
    await fill(index, "Milk")
    for query in ("", "...", "\u00ae"):
        assert (await index.search(asked(query, 10))).total == 0


async def test_words_beyond_the_sixteenth_do_not_count(index: SearchIndex) -> None:
    """They neither cost nor exclude."""
    await fill(index, "a b c d e f g h i j k l m n o p")
    assert (await index.search(asked("a b c d e f g h i j k l m n o p q r s", 10))).total == 1
    assert (await index.search(asked("z a b c", 10))).total == 0


async def test_the_total_counts_what_is_not_returned(index: SearchIndex) -> None:
    """Exactly, whatever the limit."""
    await fill(index, *["Milk"] * 30, *["Milkshake"] * 30, "Bread")
    for hits_max in (1, 29, 30, 31, 59, 60, 100):
        found = await index.search(asked("milk", hits_max))
        assert (found.total, found.total_is_exact) == (60, True)
        assert len(found.hits) == min(hits_max, 60)


async def test_a_total_of_the_bound_is_exact_also_over_several_segments(index: SearchIndex) -> None:
    """All that match are in the first; what does not match follows in others."""
    names = [*["Milk"] * COUNTED_ORDERS_MAX, "Bread", "Butter", "Cheese"]
    rows = [row(name, second) for second, name in enumerate(names)]
    for begin, end in ((0, -3), (-3, -2), (-2, -1), (-1, None)):
        assert await index.index(rows[begin:end]) == []
        await visible(index, len(rows[:end]))
    for text in ("milk", "milkk", "mi"):
        found = await index.search(asked(text, 10))
        assert (found.total, found.total_is_exact) == (COUNTED_ORDERS_MAX, True), text


async def test_a_total_is_counted_up_to_a_bound(index: SearchIndex) -> None:
    """Up to it exactly; above it "at least", also on later pages; with facets all are counted."""
    bound = COUNTED_ORDERS_MAX
    names = [*["Milk"] * (bound // 2), *["Milkshake"] * (bound // 2), *["Bread"] * (bound + 1)]
    await fill(index, *names)
    for text, total in (("milk", bound), ("milkshake", bound // 2), ("milkk", bound // 2)):
        found = await index.search(asked(text, 10))
        assert (found.total, found.total_is_exact) == (total, True), text
    for text in ("bread", "bred", "b"):
        found = await index.search(asked(text, 10))
        assert (found.total, found.total_is_exact) == (bound, False), text
        last = found.hits[-1]
        after = position(last.order, last.rank, Sort.RELEVANCE)
        for query in (asked(text, 10, after=after), asked(text, 10, sort=Sort.NEWEST)):
            found = await index.search(query)
            assert (found.total, found.total_is_exact) == (bound, False), text
        found = await index.search(asked(text, 10, facets=True))
        assert (found.total, found.total_is_exact) == (bound + 1, True), text
    await index.index([row("Milk")])
    await visible(index, 2 * bound + 2)
    found = await index.search(asked("milk", 10))
    assert (found.total, found.total_is_exact) == (bound, False)
    everything = await index.search(SearchQuery(None, 10, Sort.NEWEST))
    assert (everything.total, everything.total_is_exact) == (2 * bound + 2, True)


WORDS = [
    "C++", "C#", "c", "M\u00fcsli", "muesli", "m\u00fcslischale", "apple-sauce", "sauce", "pine",
    "schmalz", "apfelmus", "\uae40\uce58\ub97c", "\uae40\uce58\ucc0c\uac1c", "\ucc0c\uac1c",
    "apple", "apples", "applesauce", "pineapple", "milk", "milks", "silk", "mild", "bread",
    "breads", "broad", "butter", "buttermilk", "bitter", "cheese", "cheeses", "chess",
    "chocolate", "choclate", "chocolates", "cookie", "cookies", "cook", "berry", "berries",
    "strawberry", "strawberries", "blueberry", "loaf", "loaves", "oz", "lb", "lbs", "12", "16",
    "120", "a", "ab", "abc", "x", "y", "frozen", "pizza", "pizzas", "white", "whites", "wine",
    "wines", "vine", "6", "pk", "pack", "packs",
]  # fmt: skip


def _mutated(random_: random.Random, word: str) -> str:
    at = random_.randrange(len(word))
    letter = random_.choice("aeimrst1")
    return random_.choice(
        [
            word,
            word.upper(),
            word[: at + 1],
            word[:at] + word[at + 1 :],
            word[:at] + letter + word[at + 1 :],
            word[:at] + letter + word[at:],
            word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :],
            word + "s",
        ]
    )


async def test_answers_are_those_of_the_model(index: SearchIndex) -> None:
    """Total, hits and order for random names and queries, against a look at every order."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random_ = random.Random(seed)
    rows = [
        row(" ".join(random_.choices(WORDS, k=random_.randint(1, 5))), random_.randint(0, 50))
        for _ in range(400)
    ]
    for part in range(4):
        await index.index(rows[part::4])
    await visible(index, 400)
    orders = [one.order for one in rows]
    queries = [
        " ".join(
            _mutated(random_, word) for word in random_.choices(WORDS, k=random_.randint(1, 4))
        )
        for _ in range(100)
    ]
    models = [expected(orders, query) for query in queries]
    assert sum(map(bool, models)) > len(queries) / 5
    for query, model in zip(queries, models, strict=True):
        for hits_max in (1, 10, 1000):
            found = await index.search(asked(query, hits_max))
            assert found.total == len(model), query
            assert [hit.order.id for hit in found.hits] == model[:hits_max], query
