"""In which pieces entries are settled: the rest of a condemned bulk must never be found dirty."""

import pytest

from polyglot_persistence.adapters.redis.cache import pieces
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.cache import Settled
from tests.support.orders import accepted, bulk


def singles(orders: int) -> list[Settled]:
    """Return persisted orders that are units of their own."""
    return [Settled(EntryState.CLEAN, accepted(n)) for n in range(orders)]


def condemned(orders: int) -> list[Settled]:
    """Return a bulk that is dead-lettered."""
    return [Settled(EntryState.DEAD, member.accepted) for member in bulk(orders).members]


def in_conflict(orders: int) -> list[Settled]:
    """Return a bulk of which the record has another order under every other id."""
    members = [member.accepted for member in bulk(orders).members]
    rows = [AcceptedOrder(one.order, one.accepted_at, one.order.id) for one in members]
    return [
        Settled(EntryState.CLEAN, row, one) if n % 2 else Settled(EntryState.DEAD, one)
        for n, (row, one) in enumerate(zip(rows, members, strict=True))
    ]


@pytest.mark.parametrize(
    ("settled", "sizes"),
    [
        ([], []),
        (singles(7), [3, 3, 1]),
        (condemned(7), [7]),
        (singles(2) + condemned(4) + singles(1), [6, 1]),
        (condemned(2) + condemned(2) + condemned(2), [4, 2]),
        (in_conflict(8), [8]),
        (singles(3) + in_conflict(2), [3, 2]),
    ],
)
def test_no_unit_is_divided(settled: list[Settled], sizes: list[int]) -> None:
    """A piece ends with a unit, as soon as it has three orders."""
    found = list(pieces(settled, 3))
    assert [len(piece) for piece in found] == sizes
    assert [one for piece in found for one in piece] == settled
