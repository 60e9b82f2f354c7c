"""Which rows a batch asks for, and which units are left out."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.adapters.postgres.batch import candidates, contradicted
from polyglot_persistence.domain.order import AcceptedOrder, Order
from polyglot_persistence.domain.units import whole_units
from polyglot_persistence.errors import PoisonError
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.orders import START

Unit = Sequence[AcceptedOrder]


def order(number: int, content: int = 0, *, unit: int = 0, size: int = 1) -> AcceptedOrder:
    plain = Order(UUID(int=number), f"content {content}", Decimal("1.00"), START)
    return AcceptedOrder(plain, START, UUID(int=unit) if unit else plain.id, size)


def test_rows_are_in_the_order_of_their_ids() -> None:
    """Whatever order the batch came in: all batches lock in the same one."""
    numbers = [2**127, 5, 1, 2**64, 3]
    rows = candidates([[order(number)] for number in numbers]).rows
    assert [order_id.int for order_id in rows] == sorted(numbers)


def test_of_two_orders_with_one_id_the_first_is_chosen() -> None:
    """An equal second one rides along, another content is set aside with its whole unit."""
    units: list[Unit] = [
        [order(1)],
        [order(1)],
        [order(2, unit=9, size=2), order(1, content=7, unit=9, size=2)],
    ]
    chosen = candidates(units)
    assert chosen.rows == {UUID(int=1): order(1)}
    assert chosen.units == units[:2]
    assert chosen.contradicting == {UUID(int=1): units[2][1]}


def test_a_unit_that_contradicts_itself_is_poison() -> None:
    """No order of its members could be stored whole."""
    with pytest.raises(PoisonError):
        candidates([[order(1, unit=9, size=2), order(1, 2, unit=9, size=2)]])


def test_a_unit_that_repeats_itself_is_one_row() -> None:
    """The same order twice in a unit says nothing new."""
    chosen = candidates([[order(1, unit=9, size=2), order(1, unit=9, size=2)]])
    assert len(chosen.rows) == 1
    assert len(chosen.units) == 1


def test_contradicted_units_are_told_with_the_rows_against_them() -> None:
    """Only the rows that say something else, not those of the unit's other members."""
    unit = [order(1, unit=9, size=2), order(2, 5, unit=9, size=2)]
    existing = {
        row.order.id: StoredOrder(row.order, START, START + timedelta(seconds=1))
        for row in (order(1), order(2), order(3))
    }
    left_out, conflicts = contradicted([[order(3)], unit, [order(4)]], existing)
    assert left_out == [unit]
    assert conflicts == {UUID(int=2): existing[UUID(int=2)]}


UNITS = st.lists(
    st.tuples(st.integers(1, 3), st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True)),
    max_size=8,
)


@given(UNITS)
def test_a_unit_goes_in_whole_or_not_at_all(made: list[tuple[int, list[int]]]) -> None:
    """Each unit is either agreed with in every member, or set aside with a chosen row."""
    units: list[Unit] = [
        [order(n, content, unit=100 + i, size=len(numbers)) for n in numbers]
        for i, (content, numbers) in enumerate(made)
    ]
    chosen = candidates(units)
    for unit in units:
        agrees = [chosen.rows.get(one.order.id) for one in unit]
        whole = all(
            row is not None and row.order == one.order
            for row, one in zip(agrees, unit, strict=True)
        )
        if unit in chosen.units:
            assert whole
        else:
            assert any(one.order.id in chosen.contradicting for one in unit)
    assert set(chosen.contradicting) <= set(chosen.rows)


def test_a_unit_that_came_twice_is_two_units() -> None:
    """A redelivery in the same batch does not make one unit of double size."""
    once = [order(n, unit=9, size=2) for n in (1, 2)]
    single = order(3)
    assert whole_units([*once, single, *once, single]) == [once, [single], once, [single]]


EARLIER, LATER = START - timedelta(seconds=5), START + timedelta(days=1)


@pytest.mark.parametrize("accepted_at", [EARLIER, LATER, START])
@pytest.mark.parametrize("there", [[], [9], [1], [1, 2], [9, 1], [9, 1, 2]])
def test_a_keyed_bulk_of_whose_first_order_is_another_bulks(
    there: list[int], accepted_at: datetime
) -> None:
    """Its first order alone, from another moment: an earlier version stored it with other ids."""
    unit = [order(n, unit=9, size=3) for n in (1, 9, 2)]  # a sweep brings them in any order
    rows = {
        one.order.id: StoredOrder(one.order, accepted_at, LATER)
        for one in unit
        if one.order.id.int in there
    }
    left_out, against = contradicted([unit, [order(4)]], rows)
    if there == [9] and accepted_at != START:
        assert (left_out, against) == ([unit], rows)
    else:
        assert (left_out, against) == ([], {})


def test_a_bulk_without_a_key_shares_its_first_order_with_nobody() -> None:
    """And neither does a bulk of one: that is the same order."""
    for unit in ([order(n, unit=9, size=2) for n in (1, 2)], [order(1)]):
        first = unit[0].order
        assert contradicted([unit], {first.id: StoredOrder(first, LATER, LATER)}) == ([], {})


def test_two_bulks_of_one_key_in_one_batch() -> None:
    """Of one of now and one of an earlier version the first to come is chosen."""
    earlier: Unit = [order(n, unit=8, size=3) for n in (9, 6, 7)]
    now: Unit = [
        AcceptedOrder(one.order, LATER, UUID(int=9), 3) for one in (order(9), order(1), order(2))
    ]
    for first, second in ((earlier, now), (now, now)):
        chosen = candidates([first, second, first])
        assert chosen.units == ([first, first] if first is not second else [now] * 3)
        assert set(chosen.contradicting) == ({UUID(int=9)} if first is not second else set())
