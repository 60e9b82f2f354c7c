"""Replays and discards that a store cuts short, over the real record and cache."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import PoisonError, UnavailableError
from polyglot_persistence.flows.behind import dead_letter_units
from polyglot_persistence.flows.behind.dead_letters import Action, CutShortError, DeadLetterFlow
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.ports.orders import Persisted
from tests.support.addresses import BUNDLED
from tests.support.dead_letters import ALL, ME, Stand, standing
from tests.support.orders import accepted

pytestmark = BUNDLED


@pytest_asyncio.fixture
async def stand(pool: PostgresPool, redis_url: str) -> AsyncIterator[Stand]:
    async with standing(pool, redis_url) as stand:
        yield stand


class FailingAfter:
    """A store of which one method fails after so many calls of it."""

    def __init__(self, inner: object, method: str, calls: int) -> None:
        self._inner = inner
        self._method = method
        self._left = calls

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._left -= 1
            if self._left < 0:
                return _no_turn if name == "turn" else _fail
        return getattr(self._inner, name)


async def _fail(*_: object) -> None:
    raise UnavailableError("away")


@asynccontextmanager
async def _no_turn() -> AsyncIterator[None]:
    raise UnavailableError("another is at it for too long")
    yield


def failing(stand: Stand, store: str, method: str, calls: int) -> DeadLetterFlow:
    """Return the flow over the stand's stores, one of which fails then."""
    stores: dict[str, Any] = {"letters": stand.letters, "store": stand.store, "cache": stand.cache}
    stores[store] = FailingAfter(stores[store], method, calls)
    persist = PersistFlow(stores["store"], stores["cache"], SystemClock())
    return DeadLetterFlow(stores["letters"], stores["store"], stores["cache"], persist)


@pytest.mark.parametrize(
    ("action", "at", "done"),
    [
        ("discard", ("letters", "discard", 1), 4),
        ("discard", ("letters", "of_units", 1), 4),
        ("discard", ("cache", "read", 2), 8),
        ("replay", ("store", "persist", 1), 4),
        ("replay", ("store", "find", 0), 0),
        ("replay", ("letters", "of_units", 1), 4),
    ],
)
async def test_a_store_that_fails_after_an_effect_cuts_it_short(
    stand: Stand,
    monkeypatch: pytest.MonkeyPatch,
    action: Action,
    at: tuple[str, str, int],
    done: int,
) -> None:
    """The error counts what is done, is no refusal, and doing it again does the rest."""
    monkeypatch.setattr(dead_letter_units, "PART_UNITS", 4)
    await stand.bury([accepted() for _ in range(10)])
    flow = failing(stand, *at)
    with pytest.raises(CutShortError) as caught:
        await flow.act_on_slice(action, ALL, None, ME)
    assert len(caught.value.handled) == done
    left = len(await stand.ids())
    assert left <= 10 - done
    handled = await stand.whole_run(action, ALL)
    assert len(handled) == left
    assert await stand.ids() == []


@pytest.mark.parametrize(
    ("action", "store", "method"),
    [
        ("discard", "letters", "discard"),
        ("discard", "cache", "forget_dead"),
        ("replay", "store", "persist"),
        ("replay", "letters", "turn"),
    ],
)
async def test_a_store_that_refuses_the_first_effect_refuses_all(
    stand: Stand, action: Action, store: str, method: str
) -> None:
    """Nothing is replayed or discarded, and the order reads as before."""
    order = accepted()
    await stand.bury([order])
    flow = failing(stand, store, method, 0)
    with pytest.raises(UnavailableError):
        await flow.act_on_slice(action, ALL, None, ME)
    assert len(await stand.ids()) == 1
    assert (await stand.reads.status(order.order.id)).dead is not None


async def test_a_batch_that_is_persisted_in_part_cuts_it_short(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The persist flow isolates a poisoned order, and the record goes away in between."""
    await stand.bury([accepted(), accepted()])
    calls = 0
    inner = stand.store.persist

    async def persist(batch: Sequence[AcceptedOrder]) -> Persisted:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise PoisonError("one of them")
        if calls == 3:
            raise UnavailableError("away")
        return await inner(batch)

    monkeypatch.setattr(stand.store, "persist", persist)
    with pytest.raises(CutShortError):
        await stand.flow.act_on_slice("replay", ALL, None, ME)
    assert len(await stand.ids()) == 1
