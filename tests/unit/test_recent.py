"""The memory of orders that were read lately: bounded in number and in time."""

from polyglot_persistence.flows.reading.recent import RecentOrders
from tests.support.scripted import FakeClock


def test_an_order_is_remembered_for_at_most_the_seconds() -> None:
    """Whenever it came, and however often it was read since."""
    for begun in (0.0, 1.0, 4.9):
        clock = FakeClock()
        recent = RecentOrders(clock, orders_max=10, seconds=5)
        clock.advance(begun)
        recent.remember(b"id", b"{}")
        assert recent.get(b"id") == b"{}"
        for _ in range(5):
            recent.get(b"id")
            clock.advance(1)
        assert recent.get(b"id") is None


def test_what_is_read_again_and_again_stays() -> None:
    """However many others are read once."""
    recent = RecentOrders(FakeClock(), orders_max=10, seconds=5)
    recent.remember(b"id", b"{}")
    for number in range(1_000):
        recent.remember(b"%d" % number, b"{}")
        assert recent.get(b"id") == b"{}"


def test_a_pause_is_no_way_to_grow_old() -> None:
    """What was put before nobody asked for long is not found after."""
    clock = FakeClock()
    recent = RecentOrders(clock, orders_max=10, seconds=5)
    recent.remember(b"id", b"{}")
    clock.advance(60)
    assert recent.get(b"id") is None


def test_what_is_remembered_is_bounded() -> None:
    """What nobody asks for goes first, the oldest of it."""
    recent = RecentOrders(FakeClock(), orders_max=10, seconds=5)
    for number in range(1_000):
        recent.remember(b"%d" % number, b"{}")
    found = [number for number in range(1_000) if recent.get(b"%d" % number)]
    assert found == list(range(990, 1_000))


def test_what_is_remembered_again_is_replaced() -> None:
    """It keeps its place, and takes no second one."""
    recent = RecentOrders(FakeClock(), orders_max=2, seconds=5)
    for body in (b"{1}", b"{2}"):
        recent.remember(b"id", body)
    recent.remember(b"other", b"{}")
    assert (recent.get(b"id"), recent.get(b"other")) == (b"{2}", b"{}")


def test_nothing_is_remembered_where_nothing_may_be() -> None:
    """A bound of 0 switches it off."""
    recent = RecentOrders(FakeClock(), orders_max=0, seconds=5)
    recent.remember(b"id", b"{}")
    assert recent.get(b"id") is None


def test_another_epoch_forgets_all() -> None:
    """An emptied cache may have lost what would say that an entry changed."""
    recent = RecentOrders(FakeClock(), orders_max=10, seconds=5)
    recent.epoch_seen("1")
    recent.remember(b"id", b"{}")
    recent.epoch_seen("1")
    assert recent.get(b"id") is not None
    recent.epoch_seen("2")
    assert recent.get(b"id") is None
