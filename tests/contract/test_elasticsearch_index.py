"""What only Elasticsearch does: aliases, blocks, shards without a node; on the real server."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.elasticsearch.documents import FORM, MAPPINGS, SETTINGS
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.addresses import ELASTICSEARCH, address_of, needs
from tests.support.eventually import eventually
from tests.support.orders import START
from tests.support.search_elasticsearch import Elasticsearch
from tests.support.search_indexes import asked

pytestmark = needs(ELASTICSEARCH)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Elasticsearch]:
    """An alias that leads to nothing."""
    engine = Elasticsearch(address_of(ELASTICSEARCH))
    try:
        yield engine
    finally:
        await engine.close()


def rows(*amounts: str) -> list[StoredOrder]:
    orders = [Order(new_id(), "Milk", Decimal(amount), START) for amount in amounts]
    return [StoredOrder(order, START, START) for order in orders]


async def counted(index: ElasticsearchIndex, orders: int) -> None:
    async def attempt() -> None:
        assert await index.count() == orders

    await eventually(attempt)


async def made_by_hand(engine: Elasticsearch, **changes: Any) -> str:
    """Create an index of our form with something changed, and return its name."""
    name = f"{engine.alias}-{FORM}"
    await engine.client.indices.create(
        index=name,
        mappings={**MAPPINGS, **changes.get("mappings", {})},
        settings={**SETTINGS, **changes.get("settings", {})},
        aliases={engine.alias: {}},
        wait_for_active_shards=0,
    )
    return name


async def test_the_index_is_versioned_and_the_alias_leads_to_it(engine: Elasticsearch) -> None:
    """One node is enough for it to be green, and a field that nobody mapped is refused."""
    assert await engine.process().ensure() is True
    assert await engine.names() == [f"{engine.alias}-{FORM}"]
    health = await engine.client.cluster.health(index=engine.alias, wait_for_status="green")
    assert health["status"] == "green"
    mapping = await engine.client.indices.get_mapping(index=engine.alias)
    assert mapping[f"{engine.alias}-{FORM}"]["mappings"]["dynamic"] == "strict"


async def test_an_index_that_has_the_aliases_name_is_left_alone(engine: Elasticsearch) -> None:
    """It may be somebody's: the Go peer's, or one that a stray request made."""
    await engine.create(engine.alias, meta=None, aliased=False)
    index = engine.process()
    for call in (index.exists(), index.ensure(), index.index(rows("1.00"))):
        with pytest.raises(UnavailableError, match="an index is called"):
            await call
    assert await engine.names() == [engine.alias]


async def test_an_older_index_of_ours_is_deleted_and_another_ones_is_not(
    engine: Elasticsearch,
) -> None:
    """That one only loses the alias."""
    await engine.create(f"{engine.alias}-older", meta={**MAPPINGS["_meta"], "form": 1})
    await engine.create(f"{engine.alias}-others", meta=None)
    index = engine.process()
    assert await index.exists() is False
    assert await index.ensure() is True
    assert await engine.names() == [f"{engine.alias}-{FORM}", f"{engine.alias}-others"]
    await index.index(rows("1.00"))
    await counted(index, 1)


async def test_a_creation_that_was_cut_off_is_completed(engine: Elasticsearch) -> None:
    """Two indexes behind the alias, whoever put them there: neither is used until one is left."""
    index = engine.process()
    await index.ensure()
    await index.index(rows("1.00"))
    await engine.create(f"{engine.alias}-older", meta={**MAPPINGS["_meta"], "form": 1})
    late = engine.process()
    assert await late.exists() is False
    assert await late.ensure() is False
    assert await engine.names() == [f"{engine.alias}-{FORM}"]
    await counted(late, 1)


async def test_a_lost_alias_is_given_back(engine: Elasticsearch) -> None:
    """With all that the index holds."""
    index = engine.process()
    await index.ensure()
    await index.index(rows("1.00"))
    await engine.client.indices.delete_alias(index=f"{engine.alias}-{FORM}", name=engine.alias)
    assert await index.exists() is False
    assert await index.ensure() is False
    await counted(index, 1)


async def test_a_document_that_the_server_refuses_goes_alone(engine: Elasticsearch) -> None:
    """With the server's reason, and without its neighbours."""
    properties = {**MAPPINGS["properties"], "amount_cents": {"type": "byte"}}
    await made_by_hand(engine, mappings={"properties": properties})
    index = engine.process()
    batch = rows("1.00", "1.28", "1.27")
    failures = await index.index(batch)
    assert [failure.order_id for failure in failures] == [batch[1].order.id]
    assert "Value [128] is out of range for a byte" in failures[0].reason
    await counted(index, 2)


async def test_a_blocked_index_condemns_nothing(engine: Elasticsearch) -> None:
    """A disk past its flood stage blocks writing; once it has room, all goes on."""
    index = engine.process()
    await index.ensure()
    block = "index.blocks.read_only_allow_delete"
    await engine.client.indices.put_settings(index=engine.alias, settings={block: True})
    batch = rows("1.00", "2.00")
    with pytest.raises(UnavailableError, match="cluster_block_exception"):
        await index.index(batch)
    assert (await index.search(asked("milk", 10))).total == 0  # reading goes on
    await engine.client.indices.put_settings(index=engine.alias, settings={block: None})
    assert await index.index(batch) == []
    await counted(index, 2)


async def test_a_red_index_is_never_an_empty_success(engine: Elasticsearch) -> None:
    """Its shard has no node: nothing is answered, and readiness says why."""
    await made_by_hand(engine, settings={"index.routing.allocation.require._name": "nobody"})
    index = engine.process()
    assert await index.exists() is True  # not to be made anew: a node may come back with it
    with pytest.raises(UnavailableError, match="red"):
        await index.ping()
    for call in (index.search(asked("milk", 10)), index.count(), index.indexed_at(new_id())):
        with pytest.raises(UnavailableError):
            await call


async def test_a_closed_index_is_never_an_empty_success(engine: Elasticsearch) -> None:
    """An operator has closed it."""
    index = engine.process()
    await index.ensure()
    await engine.client.indices.close(index=engine.alias)
    for call in (index.search(asked("milk", 10)), index.count(), index.index(rows("1.00"))):
        with pytest.raises(UnavailableError):
            await call


async def test_ping_warns_of_a_log_that_is_not_fsynced(engine: Elasticsearch) -> None:
    """An outbox row is deleted once the index has answered, so the answer has to hold."""
    index = engine.process()
    await index.ensure()
    assert (await index.ping()).warnings == ()
    await engine.client.indices.put_settings(
        index=engine.alias, settings={"index.translog.durability": "async"}
    )
    (warning,) = (await index.ping()).warnings
    assert "durability is async" in warning.detail
