"""What an audit sees of the search index, held against every adapter on its real engine."""

import random
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.order import AMOUNT_MAX, Order, new_id
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.audit import ID_MAX, ID_MIN, RangeSum, SearchContents
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import SearchIndex
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.search_indexes import SearchEngine

VISIBLE_SECONDS = 5.0


@pytest.fixture
def contents(engine: SearchEngine, index: SearchIndex) -> SearchContents:
    """What another process sees of it."""
    return engine.contents()


def orders_of(ids: list[UUID]) -> list[Order]:
    """Return an order for each id, of every size of amount, before and after 1970."""
    amounts = [Decimal("0.00"), Decimal("0.01"), AMOUNT_MAX, Decimal("1299.90")]
    return [
        Order(
            order_id,
            f"Grüner Tee {n} 茶",
            amounts[n % 4],
            START - timedelta(days=365 * (n % 60), microseconds=n),
        )
        for n, order_id in enumerate(ids)
    ]


def sum_of(orders: list[Order]) -> RangeSum:
    return RangeSum(len(orders), sum(checksum(order) for order in orders))


async def fill(index: SearchIndex, contents: SearchContents, orders: list[Order]) -> None:
    """Index the orders and wait until an audit sees them."""
    await index.index([StoredOrder(one, START, START) for one in orders])

    async def attempt() -> None:
        assert (await contents.sum_between(ID_MIN, ID_MAX)).orders == len(orders)

    await eventually(attempt, within_seconds=VISIBLE_SECONDS)


async def test_a_missing_index_has_no_sums(engine: SearchEngine) -> None:
    """It is never taken for an empty one."""
    contents = engine.contents()
    for call in (
        contents.sum_between(ID_MIN, ID_MAX),
        contents.checksums_between(ID_MIN, ID_MAX, 10),
        contents.checksums_of([new_id()]),
    ):
        with pytest.raises(UnavailableError):
            await call


async def test_an_empty_index_sums_to_nothing(contents: SearchContents) -> None:
    """No document, no checksum."""
    assert await contents.sum_between(ID_MIN, ID_MAX) == RangeSum(0, 0)
    assert await contents.checksums_between(ID_MIN, ID_MAX, 10) == {}
    assert await contents.checksums_of([]) == {}


async def test_any_range_of_ids_has_its_sum(index: SearchIndex, contents: SearchContents) -> None:
    """Ids of every kind, also such as differ in their last bits only, and bounds within."""
    rng = random.Random(7)
    ids = [ID_MIN, ID_MAX, *[new_id() for _ in range(20)]]
    ids += [UUID(int=rng.getrandbits(128)) for _ in range(60)]
    ids += [UUID(int=(9 << 64) + n) for n in (0, 1, 2**63 - 1, 2**63, 2**64 - 1)]
    ids += [UUID(int=(10 << 64) + n) for n in range(5)]
    ids += [UUID(int=(11 << 64) + n) for n in range(5)]
    orders = sorted(orders_of(ids), key=lambda order: order.id.int)
    await fill(index, contents, orders)
    for _ in range(60):
        first, last = sorted((rng.choice(orders).id.int, rng.choice(orders).id.int))
        first, last = first + rng.choice((0, 1)), last - rng.choice((0, 1))
        if not 0 <= first <= last:
            continue
        within = [order for order in orders if first <= order.id.int <= last]
        bounds = UUID(int=first), UUID(int=last)
        assert await contents.sum_between(*bounds) == sum_of(within), bounds
        listed = await contents.checksums_between(*bounds, 1_000)
        assert list(listed.items()) == [(one.id, checksum(one)) for one in within]


async def test_a_list_is_cut_at_its_end(index: SearchIndex, contents: SearchContents) -> None:
    """The lowest ids come first, so that whoever asked can go on behind the last."""
    orders = sorted(orders_of([new_id() for _ in range(30)]), key=lambda order: order.id.int)
    await fill(index, contents, orders)
    assert list(await contents.checksums_between(ID_MIN, ID_MAX, 7)) == [o.id for o in orders[:7]]


async def test_given_ids_are_looked_up(index: SearchIndex, contents: SearchContents) -> None:
    """Only those that are there, with the checksum of what is there."""
    orders = orders_of([new_id() for _ in range(10)])
    await fill(index, contents, orders)
    asked = [orders[3].id, new_id(), orders[8].id]
    assert await contents.checksums_of(asked) == {
        orders[3].id: checksum(orders[3]),
        orders[8].id: checksum(orders[8]),
    }


async def test_a_changed_document_changes_the_sum(
    index: SearchIndex, contents: SearchContents
) -> None:
    """By one cent, one microsecond or one letter."""
    order = orders_of([new_id()])[0]
    await fill(index, contents, [order])
    for changed in (
        Order(order.id, order.product_name, order.amount + Decimal("0.01"), order.created_at),
        Order(order.id, order.product_name + "s", order.amount, order.created_at),
        Order(
            order.id, order.product_name, order.amount, order.created_at + timedelta(microseconds=1)
        ),
    ):
        assert checksum(changed) != checksum(order)
        await index.index([StoredOrder(changed, START, START)])

        async def attempt(wanted: Order = changed) -> None:
            assert await contents.sum_between(ID_MIN, ID_MAX) == sum_of([wanted])

        await eventually(attempt, within_seconds=VISIBLE_SECONDS)


async def test_removed_documents_are_gone(index: SearchIndex, contents: SearchContents) -> None:
    """Those that were never there are no error, and the others stay."""
    orders = orders_of([new_id() for _ in range(6)])
    await fill(index, contents, orders)
    await index.remove([orders[0].id, new_id(), orders[5].id])
    await index.remove([])

    async def attempt() -> None:
        assert await contents.sum_between(ID_MIN, ID_MAX) == sum_of(orders[1:5])

    await eventually(attempt, within_seconds=VISIBLE_SECONDS)
    assert await index.indexed_at(orders[0].id) is None


async def test_nothing_is_removed_from_a_missing_index(engine: SearchEngine) -> None:
    """Nor is one made."""
    index = engine.process()
    with pytest.raises(UnavailableError):
        await index.remove([new_id()])
    assert await engine.target().current_name() is None
