"""Rows that another version or another hand wrote, and this version cannot read."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.domain.dead_letter import DeadLetter, LetterFilter, Stage
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.record import Record
from tests.support.orders import accepted
from tests.support.record import Onlooker

STAGES = "dead_letters_stage_check"
MOMENTS = "orders_moments_readable"
EVERYTHING = LetterFilter()


@pytest_asyncio.fixture
async def of_newer_version(seen: Onlooker) -> AsyncIterator[None]:
    """A schema that allows stages and moments which this version does not know."""
    definition = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1"
    tables = {STAGES: "dead_letters", MOMENTS: "orders"}
    checks = {name: await seen.value(definition, name) for name in tables}
    for name, table in tables.items():
        await seen.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    yield
    for name, table in tables.items():
        await seen.execute(f"TRUNCATE {table}")
        await seen.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {checks[name]}")


@pytest.mark.usefixtures("of_newer_version")
async def test_a_letter_of_an_unknown_stage_harms_no_other(
    store: Record, pool: PostgresPool, seen: Onlooker
) -> None:
    """Its order is dead, and its neighbours are found; it is listed as any other, and stays."""
    persisted, dead, strange = accepted(), accepted(), accepted()
    await store.persist([persisted])
    for one in (dead, strange):
        letter = DeadLetter(one.order.id, one.unit_id, b"{}", "because", Stage.PERSIST, 1)
        await store.bury([letter])
    await seen.execute(
        f"UPDATE dead_letters SET stage = 'export' WHERE order_id = '{strange.order.id}'"
    )
    ids = [one.order.id for one in (persisted, dead, strange)]
    found = await store.find([*ids, new_id()])
    assert found.orders.keys() == {persisted.order.id}
    assert found.dead.keys() == {dead.order.id, strange.order.id}
    letters = PostgresDeadLetters(pool)
    page = await letters.page(EVERYTHING, None, 10)
    assert {row.letter.order_id for row in page} == {dead.order.id, strange.order.id}
    assert (await letters.count(EVERYTHING)).letters == 2
    every_id = [row[0] for row in await seen.rows("SELECT id FROM dead_letters")]
    assert len(await letters.read(every_id)) == 2
    assert len(await letters.of_units([strange.unit_id])) == 1
    assert (await store.persist([strange])).inserted
    assert await seen.value("SELECT count(*) FROM dead_letters WHERE stage = 'export'") == 1


@pytest.mark.parametrize("moment", ["12000-01-01", "0044-03-15 BC", "infinity"])
async def test_an_order_with_an_unreadable_moment_cannot_be_written(
    seen: Onlooker, moment: str
) -> None:
    """Whoever writes into the table: such a row would hide its neighbours from every reader."""
    columns = "id, product_name, amount, created_at, accepted_at"
    for values in (f"'{moment}', now()", f"now(), '{moment}'"):
        with pytest.raises(asyncpg.CheckViolationError):
            await seen.execute(
                f"INSERT INTO orders ({columns}) VALUES (gen_random_uuid(), 'x', 1, {values})"
            )


@pytest.mark.usefixtures("of_newer_version")
async def test_an_answer_that_cannot_be_read_is_no_answer(store: Record, seen: Onlooker) -> None:
    """Loops and handlers go on as when the record is away, and the connection is well."""
    order = accepted()
    await store.persist([order])
    await seen.execute("UPDATE orders SET created_at = '12000-01-01'")
    with pytest.raises(UnavailableError, match="cannot read"):
        await store.find([order.order.id])
    assert (await store.find([new_id()])).orders == {}
