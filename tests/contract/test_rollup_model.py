"""The rollup against a dictionary: whatever is persisted, in whatever order, the sums are exact."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from datetime import UTC, date, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from polyglot_persistence.adapters.postgres.pool import PostgresPool
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.adapters.postgres.sales import PostgresSalesView
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.order import AcceptedOrder, Order
from polyglot_persistence.domain.units import whole_units
from tests.support.orders import START
from tests.support.record import Onlooker, empty, onlooker

Result = TypeVar("Result")

IDS = [UUID(int=n) for n in range(1, 13)]
NAMES = st.sampled_from(["kettle", "cup"])
AMOUNTS = st.sampled_from(["0.00", "0.01", "9999999999.99"])
HOURS = st.sampled_from([-30, -1, 0, 0.2, 0.26, 30])
"""Around two midnights and two quarters of an hour."""


@st.composite
def units(draw: st.DrawFn) -> list[AcceptedOrder]:
    """A single order or a bulk, of ids that collide often, with the same content or another."""
    ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True))
    unit_id = ids[0] if len(ids) == 1 else UUID(int=draw(st.integers(100, 10_000)))
    orders = []
    for order_id in ids:
        moment = START + timedelta(hours=draw(HOURS))
        content = Order(order_id, draw(NAMES), Decimal(draw(AMOUNTS)), moment)
        orders.append(AcceptedOrder(content, START, unit_id, len(ids), draw(st.booleans())))
    return orders


class RollupAndRows(RuleBasedStateMachine):
    """Persists, and adds up by itself what the record ought to have."""

    dsn = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.wait(empty(self.dsn))
        self.pool = PostgresPool(
            self.dsn, size_max=3, connect_timeout_seconds=60, statement_timeout_seconds=60
        )
        self.store = PostgresRecord(self.pool)
        self.view = PostgresSalesView(self.pool)
        self.rows: dict[UUID, Order] = {}

    def wait(self, call: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(call)

    @rule(batch=st.lists(units(), min_size=1, max_size=4), times=st.integers(1, 2))
    def persist(self, batch: list[list[AcceptedOrder]], times: int) -> None:
        orders = [order for unit in batch for order in unit]
        for _ in range(times):
            persisted = self.wait(self.store.persist(orders))
            assert persisted.inserted.isdisjoint(self.rows)
            for order_id in persisted.inserted:
                self.rows[order_id] = persisted.stored[order_id].order
            for unit in whole_units(orders):
                refused = any(order.order.id in persisted.conflicts for order in unit)
                assert refused or all(order.order.id in self.rows for order in unit), unit

    @rule(order_id=st.sampled_from(IDS))
    def bury(self, order_id: UUID) -> None:
        if order_id not in self.rows:
            letter = DeadLetter(order_id, order_id, b"{}", "because", Stage.PERSIST, 1)
            self.wait(self.store.bury([letter]))

    @invariant()
    def the_rollup_is_the_sum_of_the_rows(self) -> None:
        days: dict[date, list[Decimal]] = defaultdict(list)
        for order in self.rows.values():
            days[order.created_at.astimezone(UTC).date()].append(order.amount)
        expected = [(day, sum(days[day]), len(days[day])) for day in sorted(days, reverse=True)]
        self.wait(self.view.refresh())
        assert expected == [tuple(day) for day in self.wait(self.view.latest_days(100))]
        self.wait(self.see())

    async def see(self) -> None:
        async with onlooker(self.dsn) as seen:
            await self.look(seen)

    async def look(self, seen: Onlooker) -> None:
        await seen.assert_rollup_exact()
        rows = await seen.rows("SELECT id, product_name, amount, created_at FROM orders")
        assert {row[0]: Order(*row) for row in rows} == self.rows
        letters = await seen.rows("SELECT order_id FROM dead_letters")
        assert self.rows.keys().isdisjoint(letter[0] for letter in letters)
        waiting = await seen.rows("SELECT unnest(order_ids) FROM index_outbox")
        assert sorted(row[0] for row in waiting) == sorted(self.rows)

    def teardown(self) -> None:
        self.wait(self.pool.close())
        self.runner.close()


@pytest.mark.timeout(240)
def test_the_rollup_is_what_the_rows_add_up_to(record_dsn: str) -> None:
    """After any batches, repeated and contradicting ones too, to the cent."""
    machine = type("RollupAndRowsHere", (RollupAndRows,), {"dsn": record_dsn})
    run_state_machine_as_test(machine, settings=settings(max_examples=10, stateful_step_count=10))
