"""The contract of `Record`: finding, paging, and the dead letters."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.ports.record import Record
from tests.support.orders import accepted
from tests.support.records import Tables


def letter(
    order_id: UUID | None,
    payload: bytes = b"{}",
    stage: Stage = Stage.PERSIST,
    reason: str = "because",
) -> DeadLetter:
    return DeadLetter(order_id, order_id, payload, reason, stage, 1)


async def test_find_tells_rows_dead_letters_and_unknown_ids_apart(store: Record) -> None:
    """A row, a dead letter, nothing: each id is in the one place where it belongs."""
    stored, dead, unknown = accepted(), new_id(), new_id()
    await store.persist([stored])
    await store.bury([letter(dead, b"\x00\xff")])
    found = await store.find([unknown, dead, stored.order.id, dead])
    assert found.orders.keys() == {stored.order.id}
    assert found.orders[stored.order.id].order == stored.order
    assert found.dead.keys() == {dead}
    assert found.dead[dead].letter == letter(dead, b"\x00\xff")
    assert abs(found.dead[dead].first_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_row_counts_more_than_a_dead_letter(store: Record) -> None:
    """Of an id with both (a refused second order) only the row is told."""
    stored = accepted()
    await store.persist([stored])
    await store.bury([letter(stored.order.id)])
    found = await store.find([stored.order.id])
    assert found.orders.keys() == {stored.order.id}
    assert found.dead == {}


async def test_a_letter_of_the_index_is_no_dead_order(store: Record) -> None:
    """An order that cannot be indexed is persisted all the same."""
    order_id = new_id()
    await store.bury([letter(order_id, stage=Stage.INDEX)])
    assert (await store.find([order_id])).dead == {}


async def test_the_latest_of_several_letters_is_told(store: Record) -> None:
    """Another payload under the same id is another letter."""
    order_id = new_id()
    await store.bury([letter(order_id, b"1", Stage.DECODE)])
    await store.bury([letter(order_id, b"2")])
    assert (await store.find([order_id])).dead[order_id].letter.payload == b"2"
    await store.bury([letter(order_id, b"1", Stage.DECODE)])
    assert (await store.find([order_id])).dead[order_id].letter.payload == b"1"


async def test_find_reads_the_epoch_with_any_number_of_ids(store: Record) -> None:
    """Also for no ids, and for one without anything; before there is an epoch it is empty."""
    assert (await store.find([])) == ({}, {}, "")
    epoch = await store.new_epoch()
    assert (await store.find([])).epoch == epoch
    assert (await store.find([new_id(), new_id()])).epoch == epoch


async def test_pages_hold_every_order_once_newest_first(store: Record) -> None:
    """By creation and then id; equal moments are not lost between two pages."""
    orders = [accepted(second=i // 3) for i in range(20)]
    await store.persist(orders)
    expected = sorted(
        (one.order for one in orders), key=lambda o: (o.created_at, o.id.int), reverse=True
    )
    walked = []
    position = None
    while page := await store.page(position, 3):
        assert len(page) <= 3
        walked += [row.order for row in page]
        position = (walked[-1].created_at, walked[-1].id)
    assert walked == expected
    assert [row.order for row in await store.page(None, 100)] == expected


async def test_a_page_of_an_empty_record_is_empty(store: Record) -> None:
    """There is nothing, before any position."""
    assert await store.page(None, 10) == []
    assert await store.page((datetime.now(UTC), new_id()), 10) == []


async def test_burying_again_only_counts_up(store: Record, tables: Tables) -> None:
    """The same order, stage and payload is the same letter, with its latest reason and moment."""
    order_id = new_id()
    await store.bury([letter(order_id)])
    first = (await store.find([order_id])).dead[order_id]
    await store.bury([letter(order_id, reason="another reason")])
    again = (await store.find([order_id])).dead[order_id]
    assert again.id == first.id
    assert again.letter == first.letter._replace(attempts=2, reason="another reason")
    assert again.first_at == first.first_at
    assert again.last_at > first.last_at
    assert len(await tables.letters()) == 1


async def test_another_stage_or_payload_is_another_letter(store: Record, tables: Tables) -> None:
    """All three tell letters apart."""
    order_id = new_id()
    await store.bury(
        [
            letter(order_id),
            letter(order_id, b"other"),
            letter(order_id, stage=Stage.INDEX),
            letter(new_id()),
        ]
    )
    assert [row.attempts for row in await tables.letters()] == [1] * 4


async def test_a_payload_without_an_id_is_one_letter_too(store: Record, tables: Tables) -> None:
    """Unreadable bytes that come again and again do not fill the table."""
    unreadable = letter(None, b"\x00 not JSON", Stage.DECODE)
    await store.bury([unreadable, unreadable])
    await store.bury([unreadable])
    assert await tables.letters() == [(None, b"\x00 not JSON", 3)]


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("NUL \x00 in it", "NUL \\0 in it"),
        ("lone \ud800", "lone \\ud800"),
        ("x" * 5000, "x" * 2000),
    ],
    ids=["nul", "surrogate", "long"],
)
async def test_any_reason_can_be_kept(store: Record, reason: str, kept: str) -> None:
    """A reason quotes what a stranger sent; that must not stop the burial."""
    order_id = new_id()
    await store.bury([letter(order_id, reason=reason)])
    assert (await store.find([order_id])).dead[order_id].letter.reason == kept


async def test_burying_nothing_is_nothing(store: Record, tables: Tables) -> None:
    """An empty call writes no row."""
    await store.bury([])
    assert len(await tables.letters()) == 0


async def test_the_nil_and_the_last_uuid_are_ids_like_others(store: Record) -> None:
    """An import may bring any UUID."""
    orders = [accepted(order_id=UUID(int=0)), accepted(order_id=UUID(int=2**128 - 1))]
    await store.persist(orders)
    assert (await store.find([UUID(int=0)])).orders.keys() == {UUID(int=0)}
    assert {row.order.id for row in await store.page(None, 10)} == {one.order.id for one in orders}


async def test_letters_carry_the_unit(store: Record) -> None:
    """What is dead-lettered whole can be replayed whole: each letter names its unit."""
    order_id, unit_id = new_id(), new_id()
    await store.bury([DeadLetter(order_id, unit_id, b"{}", "because", Stage.PERSIST, 1)])
    assert (await store.find([order_id])).dead[order_id].letter.unit_id == unit_id
