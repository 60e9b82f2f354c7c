"""Orders that PostgreSQL refuses for a reason that this project does not know: real triggers."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.errors import UnexplainedError
from polyglot_persistence.flows.behind.dead_letters import DeadLetterFlow, Operator, Outcome
from polyglot_persistence.flows.behind.persist import PersistFlow
from polyglot_persistence.ports.record import Record
from tests.support.orders import accepted
from tests.support.record import Onlooker
from tests.support.scripted import FakeClock, ScriptedCache

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'we do not sell %', NEW.product_name; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON orders {when} FOR EACH ROW
{condition} EXECUTE FUNCTION refuse();
"""
AT_ONCE, AT_COMMIT = "NOT DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"


@pytest_asyncio.fixture
async def clean(seen: Onlooker) -> AsyncIterator[None]:
    yield
    await seen.execute("DROP FUNCTION IF EXISTS refuse CASCADE")


@pytest.fixture
def flow(store: Record) -> PersistFlow:
    return PersistFlow(store, ScriptedCache(), FakeClock())


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("when", [AT_ONCE, AT_COMMIT], ids=["at once", "at commit"])
async def test_an_order_that_a_trigger_refuses_goes_alone(
    seen: Onlooker, flow: PersistFlow, pool: PostgresPool, when: str
) -> None:
    """With the trigger's words; its neighbours are persisted, and a replay once it is mended."""
    condition = "WHEN (NEW.product_name = 'absinthe')"
    await seen.execute(REFUSE.format(when=when, condition=condition))
    batch = [accepted(n) for n in range(30)]
    batch[17] = accepted(17, name="absinthe")
    await flow.persist(batch, "queue")
    assert await seen.value("SELECT count(*) FROM orders") == 29
    ((order_id, reason),) = await seen.rows("SELECT order_id, reason FROM dead_letters")
    assert order_id == batch[17].order.id
    assert "we do not sell absinthe" in reason
    await seen.assert_rollup_exact()
    letters = PostgresDeadLetters(pool)
    replays = DeadLetterFlow(letters, PostgresRecord(pool), ScriptedCache(), flow)
    (letter_id,) = [row[0] for row in await seen.rows("SELECT id FROM dead_letters")]
    operator = Operator("command", "tests")
    (kept,) = await replays.act("replay", letter_id, operator)
    assert kept.outcome is Outcome.KEPT
    assert "we do not sell absinthe" in kept.detail
    await seen.execute("DROP FUNCTION refuse CASCADE")
    (done,) = await replays.act("replay", letter_id, operator)
    assert done.outcome is Outcome.PERSISTED
    assert await seen.value("SELECT count(*) FROM orders") == 30


@pytest.mark.usefixtures("clean")
async def test_a_trigger_that_refuses_every_order_condemns_none(
    seen: Onlooker, flow: PersistFlow
) -> None:
    """That is the record's own condition; once it is over all are persisted."""
    there, batch = [accepted(n) for n in range(5)], [accepted(n) for n in range(5, 30)]
    await flow.persist(there, "queue")
    await seen.execute(REFUSE.format(when=AT_ONCE, condition=""))
    for _ in range(5):
        with pytest.raises(UnexplainedError, match="we do not sell"):
            await flow.persist([*batch, *there], "queue")
    assert await seen.value("SELECT count(*) FROM dead_letters") == 0
    await seen.execute("DROP FUNCTION refuse CASCADE")
    await flow.persist(batch, "queue")
    assert await seen.value("SELECT count(*) FROM orders") == 30
