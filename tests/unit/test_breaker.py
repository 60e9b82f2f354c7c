"""A breaker: what opens it, what closes it, and what is said of it."""

from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.runtime.breaker import FIRST_LOOKS_IN_VAIN_MAX, Breaker
from polyglot_persistence.telemetry import STORE_UP


class Store:
    """Answers a ping, or not."""

    def __init__(self) -> None:
        self.away = False

    async def ping(self) -> None:
        if self.away:
            raise UnavailableError("away")


async def test_a_store_that_nobody_tells_of_is_away_at_the_second_look() -> None:
    """One failed ping may be a moment's; one that succeeds closes it at once."""
    store = Store()
    breaker = Breaker("test", store.ping)
    seen = []
    for away in (False, True, False, True, True, True, False):
        store.away = away
        await breaker.look()
        seen.append(breaker.is_open)
        assert STORE_UP.labels("test")._value.get() == (not breaker.is_open)
    assert seen == [False, False, False, False, True, True, False]


async def test_a_store_that_was_not_there_yet_is_given_time_to_start() -> None:
    """It counts as away only after some looks; once it was there, after two."""
    store = Store()
    breaker = Breaker("test", store.ping)
    store.away = True
    for _ in range(FIRST_LOOKS_IN_VAIN_MAX):
        assert not breaker.is_open
        await breaker.look()
    assert breaker.is_open
    store.away = False
    await breaker.look()
    assert not breaker.is_open


async def test_a_failed_call_opens_it_and_only_a_ping_closes_it() -> None:
    """A probe asks nobody while it is closed."""
    store = Store()
    store.away = True
    breaker = Breaker("test", store.ping)
    await breaker.probe()
    assert not breaker.is_open
    breaker.failed(UnavailableError("away"))
    await breaker.probe()
    assert breaker.is_open
    store.away = False
    await breaker.probe()
    assert not breaker.is_open
