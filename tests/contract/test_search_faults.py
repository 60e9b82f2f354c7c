"""Faults of a search engine as the program meets them: simulated exactly as they are."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.addresses import SIMULATED
from tests.support.orders import accepted
from tests.support.search_indexes import ForgetfulEngine, Tantivy, found, made, visible
from tests.support.search_simulated import Simulated
from tests.support.servers import short_directory


@pytest_asyncio.fixture(params=["tantivy", SIMULATED])
async def forgetful(request: pytest.FixtureRequest) -> AsyncIterator[ForgetfulEngine]:
    with short_directory() as directory:
        engine: ForgetfulEngine = (
            Simulated() if request.param == SIMULATED else Tantivy(directory / "search")
        )
        try:
            yield engine
        finally:
            await engine.close()


async def test_an_engine_that_lost_the_latest_holds_the_rest(forgetful: ForgetfulEngine) -> None:
    """It is well, says nothing of it, and takes again what it lost."""
    kept, lost = (StoredOrder(one.order, one.accepted_at, one.accepted_at) for one in orders())
    index = await made(forgetful)
    await index.index([kept])
    await visible(index, 1)
    forgetful.keep()
    await index.index([lost])
    await forgetful.go_back()
    index = forgetful.process()
    assert await forgetful.target().current_name()
    assert await index.indexed_at(kept.order.id) is not None
    assert await index.indexed_at(lost.order.id) is None
    assert await found(index) == 1
    await index.index([lost])
    await visible(index, 2)


def orders() -> list[AcceptedOrder]:
    return [accepted(), accepted(1)]
