"""The contract of `DeadLetters`, and of the attempts at suspects that end in them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.domain.dead_letter import DeadLetter, DeadLetterRow, LetterFilter, Stage
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.dead_letters import DeadLetters
from polyglot_persistence.ports.record import Record
from tests.support.orders import accepted
from tests.support.record import Onlooker, pool_on
from tests.support.records import RecordEngine, Tables

ALL = LetterFilter()


@pytest.fixture
def letters(record: RecordEngine) -> DeadLetters:
    """The dead letters."""
    return record.letters()


def letter(
    order_id: UUID | None = None,
    *,
    payload: bytes = b"{}",
    reason: str = "because",
    stage: Stage = Stage.PERSIST,
    unit_id: UUID | None = None,
) -> DeadLetter:
    order_id = order_id or new_id()
    return DeadLetter(order_id, unit_id or order_id, payload, reason, stage, 1)


async def ids(letters: DeadLetters, chosen: LetterFilter = ALL) -> Sequence[int]:
    return [row.id for row in await letters.page(chosen, None, 1_000)]


async def test_pages_hold_every_letter_once_latest_first(
    store: Record, letters: DeadLetters
) -> None:
    """Strictly below the last id, so that letters that come or go meanwhile repeat nothing."""
    buried = [letter(payload=b"%d" % number) for number in range(7)]
    for one in buried:
        await store.bury([one])
    walked: list[DeadLetterRow] = []
    before = None
    while page := await letters.page(ALL, before, 3):
        assert len(page) <= 3
        walked += page
        before = page[-1].id
        await store.bury([letter()])
        await letters.discard([page[0].id])
    assert [row.letter for row in walked] == buried[::-1]
    assert abs(walked[0].first_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_page_has_payloads_only_in_part(store: Record, letters: DeadLetters) -> None:
    """A payload can be a whole message; `read` has all of it."""
    payload = b"\x00\xff" * 500_000
    await store.bury([letter(payload=payload)])
    (row,) = await letters.page(ALL, None, 10)
    assert payload.startswith(row.letter.payload)
    assert len(row.letter.payload) <= 1_000
    (whole,) = await letters.read([row.id])
    assert whole.letter.payload == payload
    assert whole == row._replace(letter=row.letter._replace(payload=payload))


async def test_every_filter_says_what_is_meant(store: Record, letters: DeadLetters) -> None:
    """Each alone, and all together; upper and lower case are equal, and nothing is syntax."""
    order_id, unit_id = new_id(), new_id()
    meant = letter(order_id, unit_id=unit_id, reason="100 % OUT of _range_", stage=Stage.INDEX)
    await store.bury([letter(), letter(reason="100 x out of range")])
    await store.bury([meant])
    (row,) = await letters.page(LetterFilter(order_id=order_id), None, 10)
    assert row.letter == meant
    later = row.last_at + timedelta(microseconds=1)
    whole = LetterFilter("% out of _R", Stage.INDEX, order_id, unit_id, row.last_at, later)
    for chosen in (
        LetterFilter(reason="% out of _R"),
        LetterFilter(stage=Stage.INDEX),
        LetterFilter(unit_id=unit_id),
        LetterFilter(since=row.last_at),
        whole,
    ):
        assert await ids(letters, chosen) == [row.id]
        assert (await letters.count(chosen)).letters == 1
    for chosen in (
        LetterFilter(reason="no such reason"),
        LetterFilter(stage=Stage.DECODE),
        LetterFilter(order_id=unit_id),
        LetterFilter(unit_id=order_id),
        LetterFilter(since=later),
        whole._replace(until=row.last_at),
    ):
        assert await ids(letters, chosen) == []
        assert await letters.count(chosen) == (0, [])
    assert len(await ids(letters, LetterFilter(until=row.last_at))) == 2


async def test_letters_are_counted_by_stage_and_kind_of_reason(
    store: Record, letters: DeadLetters
) -> None:
    """Ids and positions in a reason make no kind of their own; codes do."""
    await store.bury(
        [letter(reason=f"the record holds another order under {new_id()}") for _ in range(3)]
    )
    await store.bury([letter(reason=f"malformed (byte {n})", stage=Stage.DECODE) for n in (3, 44)])
    await store.bury([letter(reason=f"failed ({code})") for code in (22003, 23514)])
    counts = await letters.count(ALL)
    assert counts.letters == 7
    assert [(g.stage, g.reason, g.letters) for g in counts.groups] == [
        (Stage.PERSIST, "the record holds another order under <id>", 3),
        (Stage.DECODE, "malformed (byte <n>)", 2),
        (Stage.PERSIST, "failed (22003)", 1),
        (Stage.PERSIST, "failed (23514)", 1),
    ]
    assert counts.groups[0].last_at <= counts.groups[-1].last_at


async def test_more_kinds_than_anybody_reads_are_counted_all_the_same(
    store: Record, letters: DeadLetters
) -> None:
    """The list is bounded, the total is not."""
    await store.bury([letter(reason=f"reason {number:03}") for number in range(150)])
    counts = await letters.count(ALL)
    assert (counts.letters, len(counts.groups)) == (150, 100)


async def test_letters_are_read_by_id_and_unit(store: Record, letters: DeadLetters) -> None:
    """What is not there is left out; a unit's letters are all found."""
    unit_id = new_id()
    members = [letter(unit_id=unit_id, stage=stage) for stage in (Stage.DECODE, Stage.PERSIST)]
    await store.bury([*members, letter()])
    mates = await letters.of_units([unit_id, new_id()])
    assert len(mates) == 2
    rows = await letters.read([*mates, 10**12])
    assert [row.id for row in rows] == sorted(mates)
    assert {row.letter.order_id for row in rows} == {one.order_id for one in members}
    assert (await letters.read([]), await letters.of_units([])) == ([], [])


async def test_discarded_letters_are_gone_and_no_others(
    store: Record, letters: DeadLetters
) -> None:
    """Twice is as good as once."""
    await store.bury([letter(), letter(), letter()])
    last, *others = await ids(letters)
    for _ in range(2):
        await letters.discard([last, 10**12])
        assert await ids(letters) == others


async def test_a_letter_that_is_being_replayed_is_not_waited_for(
    store: Record, letters: DeadLetters, seen: Onlooker
) -> None:
    """The transaction that persists its order deletes it, or does not."""
    await store.bury([letter()])
    (letter_id,) = await ids(letters)
    await seen.execute(f"BEGIN; DELETE FROM dead_letters WHERE id = {letter_id}")
    await letters.discard([letter_id])
    await seen.execute("ROLLBACK")
    assert await ids(letters) == [letter_id]


async def test_a_letter_of_the_index_goes_into_the_outbox(
    store: Record, letters: DeadLetters, tables: Tables
) -> None:
    """In its place, once for each order; letters of other stages stay where they are."""
    orders = [accepted() for _ in range(2)]
    persisted = await store.persist(orders)
    assert persisted.outbox_id is not None
    await store.outbox_done([persisted.outbox_id])
    for payload in (b"1", b"2"):
        await store.bury(
            [letter(one.order.id, payload=payload, stage=Stage.INDEX) for one in orders]
        )
    await store.bury([letter()])
    (other, *index) = await ids(letters)
    await letters.reindex([other, *index])
    assert await ids(letters) == [other]
    assert [len(named) for named in (await tables.outbox()).values()] == [2]
    async with store.claim_outbox(0, 100) as batch:
        assert {row.order.id for row in batch.orders} == {one.order.id for one in orders}
    await letters.reindex(index)
    assert (await store.progress(dead_letters_max=1)).outbox_oldest is None


async def test_turns_are_taken_one_after_the_other(
    letters: DeadLetters, record_dsn: str, seen: Onlooker
) -> None:
    """Also by another process; whoever waits is next as soon as the one before leaves."""
    went: list[str] = []
    async with pool_on(record_dsn) as other_pool:
        other = PostgresDeadLetters(other_pool)
        inside = asyncio.Event()

        async def wait() -> None:
            await inside.wait()
            async with other.turn() as lead:
                await lead.confirm()
                went.append("second")

        waiting = asyncio.create_task(wait())
        async with letters.turn() as lead:
            inside.set()
            await lead.confirm()
            await seen.blocked()
            assert not waiting.done()
            went.append("first")
        await waiting
    assert went == ["first", "second"]


async def test_a_turn_that_does_not_come_is_unavailable(
    letters: DeadLetters, record_dsn: str
) -> None:
    """Within the deadline of a statement."""
    async with (
        letters.turn(),
        pool_on(record_dsn, statement_timeout_seconds=0.2) as other_pool,
    ):
        with pytest.raises(UnavailableError):
            async with PostgresDeadLetters(other_pool).turn():
                pytest.fail("two had the turn")


async def test_attempts_are_counted_until_one_is_survived(store: Record) -> None:
    """By subject; one that was cut short is taken back."""
    assert await store.begin_attempts(["a"]) == {"a": 1}
    assert await store.begin_attempts(["a"]) == {"a": 2}
    assert await store.begin_attempts(["b"]) == {"b": 1}
    await store.take_back_attempts(["a"])
    assert await store.begin_attempts(["a"]) == {"a": 2}
    await store.end_attempts(["a"])
    await store.take_back_attempts(["a"])
    assert await store.begin_attempts(["a"]) == {"a": 1}
    assert await store.begin_attempts(["b"]) == {"b": 2}


async def test_several_attempts_are_counted_together(store: Record) -> None:
    """In whatever order, once each; and only those that are not survived are told."""
    assert await store.begin_attempts(["b", "a"]) == {"a": 1, "b": 1}
    assert await store.begin_attempts(["c", "b"]) == {"b": 2, "c": 1}
    await store.take_back_attempts(["a"])
    assert await store.attempted(["a", "b", "c", "d"]) == {"b", "c"}
    await store.end_attempts(["b", "a"])
    assert await store.attempted(["a", "b", "c"]) == {"c"}


async def test_attempts_of_yesterday_are_forgotten(store: Record, seen: Onlooker) -> None:
    """Of a suspect that never came again; those of today stay."""
    await store.begin_attempts(["old"])
    await store.begin_attempts(["young"])
    await seen.execute(
        "UPDATE suspects SET last_at = last_at - interval '25 hours' WHERE subject = 'old'"
    )
    await store.end_attempts(["another"])
    assert await seen.rows("SELECT subject FROM suspects") == [("young",)]
