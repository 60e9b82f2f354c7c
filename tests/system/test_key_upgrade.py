"""Keyed orders of version 0.1, repeated after the upgrade: nothing is stored twice.

Real processes and stores; the rows of before are written as that version wrote them.
"""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from polyglot_persistence.domain.order import bulk_ids, derived_id, earlier_bulk_ids
from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from tests.support.eventually import eventually
from tests.support.stand import Program, Stand, stand_on

pytestmark = pytest.mark.timeout(180)

NAMES = ["Coffee", "Filter", "Mug"]


@pytest_asyncio.fixture
async def stand(postgres_server: EmbeddedPostgres) -> AsyncIterator[Stand]:
    async with stand_on(postgres_server) as stand:
        yield stand


async def upgraded(stand: Stand, size: int) -> tuple[Program, list[UUID]]:
    """Return an API, and the ids of a keyed bulk that an earlier version accepted an hour ago."""
    api = await stand.api()
    stand.worker()
    await stand.all_persisted()
    ids = earlier_bulk_ids("", "key", size)
    for order_id, name in zip(ids, NAMES, strict=False):
        await stand.record.execute(
            "INSERT INTO orders (id, product_name, amount, created_at, accepted_at) "
            f"VALUES ('{order_id}', '{name}', 1, now() - interval '1 hour', "
            "now() - interval '1 hour')"
        )
    return api, ids


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_bulk_is_replayed_after_the_upgrade(stand: Stand, size: int) -> None:
    """Under the ids that it was given then."""
    api, ids = await upgraded(stand, size)
    again = await api.place_bulk(NAMES[:size], "key")
    assert (again.status, again.json["order_ids"]) == (202, [str(one) for one in ids])
    assert (await api.place_bulk([*NAMES[: size - 1], "Other"], "key")).status == 422
    await stand.all_persisted()
    assert await stand.kept() == sorted(NAMES[:size])


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_bulk_that_could_not_be_looked_for_is_not_doubled(stand: Stand, size: int) -> None:
    """The record stood still when it came again, and the cache had forgotten it."""
    api, ids = await upgraded(stand, size)
    stand.record_link.stall()
    unchecked = await api.place_bulk(NAMES[:size], "key")
    assert (unchecked.status, unchecked.json["order_ids"]) == (
        202,
        [str(one) for one in bulk_ids("", "key", size)],
    )
    stand.record_link.resume()

    async def is_decided() -> None:
        assert await stand.dirty() == 0
        assert await stand.queued() == 0

    await eventually(is_decided, within_seconds=60)
    assert await stand.record.value("SELECT count(*) FROM orders") == size
    assert await stand.record.value("SELECT count(*) FROM dead_letters") == (
        0 if size == 1 else size
    )
    for order_id in unchecked.json["order_ids"]:
        assert await api.read(order_id) == 200

    async def is_replayed() -> None:
        again = await api.place_bulk(NAMES[:size], "key")
        assert (again.status, again.json["order_ids"]) == (202, [str(one) for one in ids])

    await eventually(is_replayed, within_seconds=30)
    assert await stand.record.value("SELECT count(*) FROM orders") == size


async def test_other_orders_have_the_ids_of_before(stand: Stand) -> None:
    """Single orders and lines of imports: whatever store is away, they are the same ones."""
    api = await stand.api()
    stand.record_link.stall()
    one = await api.place("Milk", "key")
    assert (one.status, one.json["order_id"]) == (202, str(derived_id("", "key")))
    stand.record_link.resume()
    stand.worker()
    await stand.all_persisted()
    line = {"product_name": "Tea", "amount": 1}
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "key"}
    for accepted in (1, 0):
        answer = await api.request("POST", "/api/orders/import", line, headers)
        assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (
            200,
            accepted,
            0,
        )
    await stand.all_persisted()
    assert await api.read(str(derived_id("", "key", 1))) == 200
    assert await stand.kept() == ["Milk", "Tea"]
