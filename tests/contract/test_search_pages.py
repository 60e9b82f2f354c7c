"""Pages, bounds, orders of hits, counts and names of the search port, over every adapter."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.domain.order import Order, new_id, to_micros
from polyglot_persistence.domain.search.query import (
    DAYS_MAX,
    NAMES_MAX,
    PRICE_BOUNDS_CENTS,
    Bounds,
    NameOrders,
    Position,
    SearchQuery,
    Sort,
    position,
)
from polyglot_persistence.domain.search.terms import parse_query
from polyglot_persistence.flows.projections.search import SearchFlow
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import SearchIndex
from tests.support.orders import START
from tests.support.search_indexes import REAL_ENGINES, asked, visible
from tests.support.search_model import expected

MANY_DAYS = 66_000

NAMES = ["Milk", "Milks 1 GAL", "Milkshake", "Malk", "Whole milk", "Bread", "Milk bread", "Melk"]


def orders(random_: random.Random, count: int) -> list[Order]:
    """Return orders with many equal names, moments and amounts, and with every name."""
    return [
        Order(
            new_id(),
            NAMES[number] if number < len(NAMES) else random_.choice(NAMES),
            Decimal(random_.choice([0, 99, 100, 250, 999, 1_000, 123_456_789_012])) / 100,
            START + timedelta(microseconds=random_.randint(0, 9), hours=random_.randint(0, 80)),
        )
        for number in range(count)
    ]


async def add(index: SearchIndex, added: list[Order], total: int) -> None:
    """Index orders and wait until so many are found in all."""
    assert await index.index([StoredOrder(order, START, START) for order in added]) == []
    await visible(index, total)


@pytest.fixture
def random_() -> random.Random:
    """A source of chance whose seed is printed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("sort", Sort)
async def test_pages_put_together_are_the_whole(
    index: SearchIndex, random_: random.Random, sort: Sort
) -> None:
    """In the model's order, whatever the page's size, with the same total on each page."""
    indexed = orders(random_, 60)
    await add(index, indexed, 60)
    for text in ("milk", "milk bread", "mi", "millk"):
        model = expected(indexed, text, sort)
        assert model
        for size in (4, 25):
            pages: list[object] = []
            after: Position | None = None
            while True:
                found = await index.search(asked(text, size, sort=sort, after=after))
                assert found.total == len(model)
                pages += [hit.order.id for hit in found.hits]
                if len(found.hits) < size:
                    break
                after = position(found.hits[-1].order, found.hits[-1].rank, sort)
            assert pages == model, (text, size)


@pytest.mark.parametrize("sort", Sort)
async def test_pages_stand_still_while_orders_arrive(
    index: SearchIndex, random_: random.Random, sort: Sort
) -> None:
    """Each order that was there at first is shown exactly once."""
    first = orders(random_, 60)
    await add(index, first, 60)
    model = expected(first, "milk", sort)
    shown: list[object] = []
    after: Position | None = None
    total = 60
    while True:
        found = await index.search(asked("milk", 15, sort=sort, after=after))
        shown += [hit.order.id for hit in found.hits]
        if len(found.hits) < 15:
            break
        after = position(found.hits[-1].order, found.hits[-1].rank, sort)
        if total < 120:
            total += 20
            await add(index, orders(random_, 20), total)
    assert [order_id for order_id in shown if order_id in set(model)] == model
    assert len(shown) == len(set(shown))


async def test_bounds_are_kept_to_the_microsecond_and_the_cent(
    index: SearchIndex, random_: random.Random
) -> None:
    """Both ends are within, and any of them may be open."""
    indexed = orders(random_, 150)
    await add(index, indexed, 150)
    moments = sorted(to_micros(order.created_at) for order in indexed)
    cents = [99, 100, 250, 999, 123_456_789_012]
    for _ in range(25):
        low, high = sorted(random_.sample(moments, 2))
        cheap, dear = sorted(random_.sample(cents, 2))
        bounds = Bounds(*(random_.choice([None, end]) for end in (low, high, cheap, dear)))
        sort = random_.choice(list(Sort))
        model = expected(indexed, "milk", sort, bounds)
        found = await index.search(asked("milk", 200, sort=sort, bounds=bounds))
        assert found.total == len(model)
        assert [hit.order.id for hit in found.hits] == model, bounds


@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.AMOUNT])
async def test_without_words_every_order_is_a_hit(
    index: SearchIndex, random_: random.Random, sort: Sort
) -> None:
    """In the order that is asked for, with or without bounds."""
    indexed = orders(random_, 40)
    await add(index, indexed, 40)
    for bounds in (Bounds(), Bounds(cents_max=250)):
        model = [
            order
            for order in indexed
            if bounds.cents_max is None or order.amount * 100 <= bounds.cents_max
        ]
        model.sort(key=lambda order: position(order, 0, sort), reverse=True)
        found = await index.search(SearchQuery(None, 15, sort, bounds))
        assert found.total == len(model)
        assert [hit.order for hit in found.hits] == model[:15]
        assert {hit.rank for hit in found.hits} == {0}


async def test_ranks_do_not_depend_on_what_comes_first(
    index: SearchIndex, random_: random.Random
) -> None:
    """A hit says how well it matches also where the newest stand first."""
    await add(index, orders(random_, 60), 60)
    ranks = [
        {hit.order.id: hit.rank for hit in (await index.search(asked("milk", 100, sort=s))).hits}
        for s in Sort
    ]
    assert ranks[0]
    assert ranks[0] == ranks[1] == ranks[2]


async def test_facets_count_everything_that_matches(
    index: SearchIndex, random_: random.Random
) -> None:
    """By price, day and name, whatever the page; and only if they are asked for."""
    indexed = orders(random_, 200)
    await add(index, indexed, 200)
    bounds = Bounds(cents_min=99)
    ids = set(expected(indexed, "milk", bounds=bounds))
    found = [order for order in indexed if order.id in ids]
    days = Counter(order.created_at.date() for order in found)
    names = Counter(order.product_name for order in found)
    prices = Counter(
        max(low for low in PRICE_BOUNDS_CENTS if low <= order.amount * 100) for order in found
    )
    first = (await index.search(asked("milk", 3, bounds=bounds))).hits[-1]
    after = position(first.order, first.rank, Sort.RELEVANCE)
    for query in (
        asked("milk", 3, bounds=bounds, facets=True),
        asked("milk", 3, bounds=bounds, facets=True, after=after),
    ):
        facets = (await index.search(query)).facets
        assert facets is not None
        assert [(low, n) for low, _, n in facets.prices] == sorted(prices.items())
        assert facets.days == sorted(days.items(), reverse=True)
        assert facets.names == sorted(names.items(), key=lambda item: (-item[1], item[0]))
    assert (await index.search(asked("milk", 3))).facets is None
    nothing = await index.search(asked("!", 3, facets=True))
    assert nothing.facets == ([], [], [])


async def test_days_and_names_of_facets_are_bounded(index: SearchIndex) -> None:
    """The latest days, the most ordered names, ties by name."""
    start = datetime(2016, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    indexed = [
        Order(new_id(), f"Tea {n % 25:02d}", Decimal(1), start + timedelta(days=n))
        for n in range(60)
    ]
    for part in range(3):
        await index.index([StoredOrder(o, START, START) for o in indexed[part::3]])
    await visible(index, 60)
    facets = (await index.search(asked("tea", 1, facets=True))).facets
    assert facets is not None
    assert [day for day, _ in facets.days] == [
        (start + timedelta(days=n)).date() for n in range(59, 28, -1)
    ]
    assert facets.names == [NameOrders(f"Tea {n:02d}", 3) for n in range(10)]


@pytest.mark.parametrize("engine", REAL_ENGINES, indirect=True)
async def test_orders_of_any_days_and_names_are_counted(index: SearchIndex) -> None:
    """More different ones than an engine counts by at once, also of years that nobody sells in."""
    first = datetime(1, 1, 1, tzinfo=UTC)
    indexed = [
        Order(new_id(), f"Tea {n}", Decimal(1), first + timedelta(days=43 * n))
        for n in range(MANY_DAYS)
    ]
    for start in range(0, MANY_DAYS, 2_000):
        rows = [StoredOrder(o, START, START) for o in indexed[start : start + 2_000]]
        assert await index.index(rows) == []
    await visible(index, MANY_DAYS)
    found = await index.search(asked("tea", 1, facets=True))
    assert found.total == MANY_DAYS
    assert found.facets is not None
    latest = [(o.created_at.date(), 1) for o in indexed[: -DAYS_MAX - 1 : -1]]
    assert list(found.facets.days) == latest
    assert len(found.facets.names) == NAMES_MAX


async def test_names_are_those_of_most_orders(index: SearchIndex) -> None:
    """Every word has to match, no words find none, and there are no more than wanted."""
    counts = {"Milk": 3, "Milk bread": 5, "Milkshake": 1, "Bread": 4, "Malk": 2}
    many = [name for name, count in counts.items() for _ in range(count)]
    await add(index, [Order(new_id(), name, Decimal(1), START) for name in many], 15)
    found = {
        "milk": [("Milk bread", 5), ("Milk", 3), ("Malk", 2), ("Milkshake", 1)],
        "mil bread": [("Milk bread", 5)],
        "wine": [],
        "": [],
    }
    for text, names in found.items():
        assert await index.names(parse_query(text), 10) == names, text
    assert await index.names(parse_query("milk"), 2) == found["milk"][:2]


async def test_suggestions_complete_what_is_typed(index: SearchIndex) -> None:
    """Most ordered first; typos are forgiven only if nothing is spelt like it."""
    counts = {"STRAWBERRIES 16 OZ": 3, "STRAW HAT": 5, "STRAWBERRY <JAM>": 1, "STEW": 9}
    many = [name for name, count in counts.items() for _ in range(count)]
    await add(index, [Order(new_id(), name, Decimal(1), START) for name in many], 18)
    flow = SearchFlow(index, SystemClock())
    shown = {
        "s": ["STEW", "STRAW HAT", "STRAWBERRIES 16 OZ", "STRAWBERRY <JAM>"],
        "strawb": ["STRAWBERRIES 16 OZ", "STRAWBERRY <JAM>"],
        "strawberry j": ["STRAWBERRY <JAM>"],
        "j strawberry": ["STRAWBERRY <JAM>"],
        "straw 1": ["STRAWBERRIES 16 OZ"],
        "straw q": [],
        "strwaberry": ["STRAWBERRIES 16 OZ", "STRAWBERRY <JAM>"],
        "xyz": [],
        "!": [],
    }
    for text, names in shown.items():
        assert [one.product_name for one in await flow.suggest(text, 10)] == names, text
    best = (await flow.suggest("strawberry j", 1))[0]
    assert best.highlighted == "<mark>STRAWBERRY</mark> &lt;<mark>J</mark>AM&gt;"


async def test_a_query_that_finds_nothing_is_corrected(index: SearchIndex) -> None:
    """By the longest words that stand together in a name; not if only the bounds exclude it."""
    names = ["STRAWBERRIES ORGANIC 16 OZ", "BLUEBERRIES 16 OZ", "CREAM CHEESE", "RYE BREAD"]
    await add(index, [Order(new_id(), name, Decimal(1), START) for name in names], 4)
    flow = SearchFlow(index, SystemClock())
    corrected = {
        "strawbarrees": "strawberries",
        "organik strawbarrees": "organic strawberries",
        "strawberries cheese": "strawberries",
        "rye strawberries": "strawberries",
        "16 rye cheese": "cheese",
        "oz qqqq cheese": "cheese",
        "rey": "rye",
        "qqqq": None,
        "strawberry": None,
    }
    for text, other in corrected.items():
        page = await flow.search(asked(text, 10))
        assert (page.total == 0) == (text != "strawberry"), text
        assert page.did_you_mean == other, text
        if other:
            assert (await flow.search(asked(other, 10))).total > 0
    dear = await flow.search(asked("bread", 10, bounds=Bounds(cents_min=1_000)))
    assert (dear.total, dear.did_you_mean) == (0, None)
