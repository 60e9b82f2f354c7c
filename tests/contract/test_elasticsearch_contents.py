"""Documents that somebody else changes in Elasticsearch, past the program."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.ports.audit import ID_MAX, ID_MIN, RangeSum
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.addresses import ELASTICSEARCH, address_of, needs
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.search_elasticsearch import Elasticsearch
from tests.support.search_indexes import made

pytestmark = needs(ELASTICSEARCH)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Elasticsearch]:
    """An alias that leads to nothing."""
    engine = Elasticsearch(address_of(ELASTICSEARCH))
    try:
        yield engine
    finally:
        await engine.close()


EDITS: list[dict[str, Any]] = [
    {"product_name": "Water"},
    {"amount_cents": 1},
    {"created_at": "2020-01-01T00:00:00Z"},
    {"product_name": None},
    {"amount_cents": [150, 1]},
]


@pytest.mark.parametrize("edit", EDITS, ids=str)
async def test_an_edited_document_is_told_by_sum_and_by_checksum(
    engine: Elasticsearch, edit: dict[str, Any]
) -> None:
    """The checksum stays in the source, but the columns are not the ones that were sealed."""
    index, contents = await made(engine), engine.contents()
    orders = [Order(new_id(), "Milk", Decimal("1.50"), START) for _ in range(3)]
    await index.index([StoredOrder(order, START, START) for order in orders])
    sums = RangeSum(3, sum(map(checksum, orders)))

    async def shown() -> None:
        assert await contents.sum_between(ID_MIN, ID_MAX) == sums

    await eventually(shown)
    edited = orders[1].id
    await engine.client.update(index=engine.alias, id=str(edited), doc=edit, refresh=True)
    assert await contents.sum_between(ID_MIN, ID_MAX) != sums
    listed = await contents.checksums_between(ID_MIN, ID_MAX, 10)
    assert {i for i, found in listed.items() if found != sums_of(orders).get(i)} == {edited}


async def test_an_edit_that_changes_nothing_of_an_order_is_no_drift(engine: Elasticsearch) -> None:
    """The source is whole, so an update in place keeps what it does not touch."""
    index, contents = await made(engine), engine.contents()
    order = Order(new_id(), "Čaj 🫖 \ud7ff", Decimal("1.50"), START)
    await index.index([StoredOrder(order, START, START)])
    edit = {"indexed_at": "2020-01-01T00:00:00Z"}
    await engine.client.update(index=engine.alias, id=str(order.id), doc=edit, refresh=True)
    assert await contents.sum_between(ID_MIN, ID_MAX) == RangeSum(1, checksum(order))


def sums_of(orders: list[Order]) -> dict[Any, int]:
    return {order.id: checksum(order) for order in orders}


async def test_a_document_that_is_no_order_is_told(engine: Elasticsearch) -> None:
    """Somebody's own document with an id like ours counts."""
    await made(engine)
    contents = engine.contents()
    stranger = new_id()
    await engine.client.index(
        index=engine.alias, id=str(stranger), document={"id": str(stranger)}, refresh=True
    )
    assert await contents.sum_between(ID_MIN, ID_MAX) == RangeSum(1, -1)
    assert await contents.checksums_between(ID_MIN, ID_MAX, 10) == {stranger: -1}
