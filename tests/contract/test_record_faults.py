"""Faults of a record as the program meets them: simulated exactly as they are."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.record import Record
from tests.support.addresses import SIMULATED
from tests.support.eventually import eventually
from tests.support.orders import accepted
from tests.support.record_faults import FaultyRecord, SimulatedFaultyRecord, real_record

pytestmark = pytest.mark.timeout(180)

AWAY = (UnavailableError, UnknownOutcomeError)
BACK_SECONDS = 20.0


@pytest.fixture
def stopped(request: pytest.FixtureRequest) -> Path:
    """The data directory of a server that was stopped."""
    path: Path = request.getfixturevalue("stopped_postgres")
    return path


@pytest_asyncio.fixture
async def bundled(stopped: Path) -> AsyncIterator[FaultyRecord]:
    async with real_record(stopped) as record:
        yield record


@pytest.fixture
def simulated() -> FaultyRecord:
    return SimulatedFaultyRecord()


@pytest.fixture(params=["bundled", SIMULATED])
def faulty(request: pytest.FixtureRequest) -> FaultyRecord:
    record: FaultyRecord = request.getfixturevalue(request.param)
    return record


async def again(call: Callable[[], Awaitable[object]]) -> None:
    """Call until the record is back."""
    await eventually(call, within_seconds=BACK_SECONDS, retried=AWAY)


def every_write(store: Record) -> list[Callable[[], Awaitable[object]]]:
    letter = DeadLetter(None, None, b"?", "because", Stage.DECODE, 1)
    return [
        lambda: store.persist([accepted()]),
        lambda: store.bury([letter]),
        lambda: store.begin_attempts(["a"]),
        lambda: store.end_attempts(["a"]),
        store.new_epoch,
    ]


async def test_a_standby_that_lags_lacks_the_latest_and_has_another_epoch(
    faulty: FaultyRecord,
) -> None:
    """What it never got is gone, the epoch too; no epoch from before equals one from after."""
    store = faulty.store()
    kept, lost = accepted(), accepted(1)
    first, _ = await store.found_epoch()
    kept_epoch = await store.new_epoch()
    await store.persist([kept])
    await faulty.cut_off()
    await store.persist([lost])
    lost_epoch = await store.new_epoch()
    await faulty.fail_over()
    await again(lambda: store.persist([accepted(2)]))
    found = await store.find([kept.order.id, lost.order.id])
    assert found.orders.keys() == {kept.order.id}
    assert found.epoch not in {first, kept_epoch, lost_epoch}
    assert found.epoch == await store.epoch()
    assert await store.found_epoch() == (found.epoch, False)
    assert await store.new_epoch() not in {first, kept_epoch, lost_epoch, found.epoch}
    assert (await store.persist([lost])).inserted == {lost.order.id}


async def test_a_position_is_followed_by_each_later_one_until_a_failover(
    faulty: FaultyRecord,
) -> None:
    """A restart breaks nothing; after a promotion nothing follows, however much is written."""
    store = faulty.store()
    positions = [await store.position()]
    for n in range(3):
        await store.persist([accepted(n)])
        positions.append(await store.position())
    await faulty.stop()
    await faulty.start()
    await again(store.ping)
    positions.append(await store.position())
    for earlier, later in itertools.pairwise(positions):
        assert later.follows(earlier)
    assert positions[3].written > positions[0].written
    assert not positions[0].follows(positions[3])
    await faulty.cut_off()
    await faulty.fail_over()
    for n in range(5):
        await again(lambda n=n: store.persist([accepted(10 + n)]))  # type: ignore[misc]
    promoted = await store.position()
    assert not any(promoted.follows(earlier) for earlier in positions)
    assert (await store.position()).follows(promoted)


async def test_a_record_that_is_away_refuses_and_comes_back_with_everything(
    faulty: FaultyRecord,
) -> None:
    """Nothing is told of it meanwhile, and its epoch is the same again."""
    store = faulty.store()
    order = accepted()
    await store.persist([order])
    epoch = await store.new_epoch()
    await faulty.stop()
    for call in (
        *every_write(store),
        lambda: store.find([order.order.id]),
        lambda: store.page(None, 1),
        lambda: store.progress(dead_letters_max=1),
        store.epoch,
        store.ping,
    ):
        with pytest.raises(UnavailableError):
            await call()
    with pytest.raises(UnavailableError):
        async with store.lead("role"):
            pass
    await faulty.start()
    await again(store.ping)
    found = await store.find([order.order.id])
    assert found.orders.keys() == {order.order.id}
    assert found.epoch == epoch


async def test_a_record_that_refuses_writes_answers_reads(faulty: FaultyRecord) -> None:
    """It is away for whoever persists, and a ping says so."""
    store = faulty.store()
    order = accepted()
    await store.persist([order])
    epoch = await store.new_epoch()
    await faulty.refuse_writes()
    await again(lambda: store.find([]))
    for call in (*every_write(store), store.ping):
        with pytest.raises(UnavailableError):
            await call()
    with pytest.raises(UnavailableError):
        async with store.claim_outbox(0, 10):
            pass
    found = await store.find([order.order.id])
    assert found.orders.keys() == {order.order.id}
    assert found.epoch == epoch == await store.epoch()
    assert [row.order.id for row in await store.page(None, 10)] == [order.order.id]
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 1


async def test_a_session_that_ends_takes_its_role_and_its_claim_along(
    faulty: FaultyRecord,
) -> None:
    """Another leads at once; the rows wait for another claim, and are not deleted by this one."""
    store, other = faulty.store(), faulty.store()
    order = accepted()
    await store.persist([order])
    async with store.lead("role") as lead:
        assert lead is not None
        await lead.confirm()

        async def claim() -> None:
            async with store.claim_outbox(0, 10) as batch:
                assert [row.order.id for row in batch.orders] == [order.order.id]
                await faulty.cut_sessions()

        with pytest.raises(AWAY):
            await claim()
        with pytest.raises(UnavailableError):
            await lead.confirm()

        async def led() -> None:
            async with other.lead("role") as second:
                assert second is not None

        await again(led)
    async with store.claim_outbox(0, 10) as batch:
        assert [row.order.id for row in batch.orders] == [order.order.id]
    assert (await store.progress(dead_letters_max=1)).outbox_orders == 0
