"""Readiness: whom it tells what, and how often it asks the stores."""

import asyncio

import httpx2
import pytest

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.bootstrap.process import leave
from polyglot_persistence.domain.access import ApiKey, Scope, digest_of
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.watch import health
from polyglot_persistence.flows.watch.health import Health, HealthFlow, SharedHealth, StoreHealth
from polyglot_persistence.ports.state import StoreState, StoreWarning
from tests.support.eventually import eventually
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS, StubFlows


class Store:
    """Counts how often it is asked, and answers when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_up = True
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ping(self) -> StoreState:
        """Answer as any store."""
        self.asked += 1
        await self.may_answer.wait()
        if not self.is_up:
            raise UnavailableError("away")
        return StoreState("Store 1")


OPERATOR = ApiKey("oncall", frozenset({Scope.ADMIN}), digest_of(b"operator"))


async def test_however_many_ask_at_once_the_stores_are_asked_once() -> None:
    """Also while they take their time, and although some of those who ask hang up."""
    stores = {"cache": Store(), "queue": Store()}
    shared = SharedHealth(HealthFlow(stores))
    stores["cache"].may_answer.clear()
    asking = [asyncio.ensure_future(shared.check()) for _ in range(300)]

    async def is_asked() -> None:
        assert stores["cache"].asked == 1

    await eventually(is_asked)
    for one in asking[:100]:
        one.cancel()
    stores["cache"].may_answer.set()
    answers = await asyncio.gather(*asking[100:])
    assert {answer.mode for answer in answers} == {"normal"}
    assert (stores["cache"].asked, stores["queue"].asked) == (1, 1)


async def test_an_answer_is_fresh_for_about_a_second() -> None:
    """Then the stores are asked again: what is away, or back, is soon told."""
    store = Store()
    shared = SharedHealth(HealthFlow({"cache": store, "queue": Store()}))
    for _ in range(50):
        assert (await shared.check()).mode == "normal"
    assert store.asked == 1
    for is_up, mode in ((False, "degraded: cache away"), (True, "normal")):
        store.is_up = is_up

        async def is_told(mode: str = mode) -> None:
            told = await shared.check()
            assert told.mode == mode
            assert told.accepting

        await eventually(is_told, within_seconds=5 * health.FRESH_SECONDS)


async def test_a_process_that_leaves_is_not_ready_at_once() -> None:
    """Although an answer is fresh, and whatever the stores do: from the stop signal on."""
    store, stop = Store(), asyncio.Event()
    flow = HealthFlow({"cache": store, "queue": Store()})
    shared = SharedHealth(flow)
    leaving = asyncio.ensure_future(leave(flow, stop))
    assert (await shared.check()).accepting
    store.may_answer.clear()
    stop.set()
    await leaving
    assert await shared.check() == Health({}, accepting=False, mode="stopping")
    assert store.asked == 1
    answer = await ready(await shared.check(), "10.1.1.1", {})
    assert (answer.status_code, answer.json()["mode"]) == (503, "stopping")


async def ready(state: Health, address: str, headers: dict[str, str]) -> httpx2.Response:
    """Return the answer where anybody may read and write, and operators have a key."""
    flows = StubFlows()
    flows.state_of_stores = state
    app = build_app(
        flows.as_flows(),
        LIMITS,
        clock=FakeClock(),
        stopping=asyncio.Event(),
        access=Access([OPERATOR]),
    )
    transport = httpx2.ASGITransport(app, client=(address, 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get("/health/ready", headers=headers)


@pytest.mark.parametrize("accepting", [True, False])
async def test_readiness_tells_operators_each_stores_state(accepting: bool) -> None:
    """200 while orders can be accepted, also degraded; else 503."""
    stores = {
        "cache": StoreHealth(StoreState("Valkey 9", (StoreWarning("set appendonly yes"),))),
        "search": StoreHealth(None, "10.0.0.7:9200 refused user u"),
    }
    state = Health(stores, accepting, "degraded: search away")
    answer = await ready(state, "10.0.0.7", {"x-api-key": "operator"})
    assert answer.status_code == (200 if accepting else 503)
    assert answer.json() == {
        "status": "ready" if accepting else "not ready",
        "mode": "degraded: search away",
        "stores": {
            "cache": {
                "up": True,
                "version": "Valkey 9",
                "warnings": ["set appendonly yes"],
                "error": None,
            },
            "search": {
                "up": False,
                "version": None,
                "warnings": [],
                "error": "does not answer; see the log",
            },
        },
    }


@pytest.mark.parametrize("accepting", [True, False])
@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("10.0.0.7", {}),
        ("127.0.0.1", {"host": "localhost"}),  # as a proxy on this machine sends it by default
        ("10.0.0.7", {"host": "shop.example"}),
        ("127.0.0.1", {"host": "shop.example"}),
        ("127.0.0.1", {"host": "shop.example", "x-forwarded-for": "10.0.0.7"}),
    ],
)
async def test_readiness_tells_strangers_the_mode_only(
    accepting: bool, address: str, headers: dict[str, str]
) -> None:
    """With the same status, for load balancers."""
    stores = {"cache": StoreHealth(StoreState("Valkey 9", (StoreWarning("set appendonly yes"),)))}
    state = Health(stores, accepting, "degraded: search away")
    answer = await ready(state, address, headers)
    assert answer.status_code == (200 if accepting else 503)
    assert answer.json() == {
        "status": "ready" if accepting else "not ready",
        "mode": "degraded: search away",
    }
