"""Nothing acknowledged is lost and nothing is doubled, however the system ends."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.checkers import check_nothing_lost_or_doubled
from tests.support.clients import History, place_orders
from tests.support.deployments import Deployment
from tests.support.processes import eventually

CONNECTIONS = 64
ORDERS_BEFORE_THE_END = 2_000
WORD = "widget"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda deployment: deployment.stop(), id="sigterm"),
        pytest.param(lambda deployment: deployment.kill(), id="kill -9"),
    ],
)
async def test_every_acknowledged_order_is_there_once_after_a_restart(
    end: Callable[[Deployment], Awaitable[None]], deployment: Deployment
) -> None:
    """In record, search and sales; orders without an answer are there once or not at all."""
    history = History()
    stop = asyncio.Event()
    await deployment.start()
    placing = asyncio.create_task(
        place_orders(deployment.port, history, stop, connections=CONNECTIONS, word=WORD)
    )
    await eventually(
        lambda: len(history.acknowledged) >= ORDERS_BEFORE_THE_END, what="enough orders"
    )
    await end(deployment)
    stop.set()
    await placing
    await deployment.start()
    print(await check_nothing_lost_or_doubled(deployment.port, history, word=WORD))
