"""PostgreSQL is away: the backlog is bounded, memory too, and in the end all counts are equal."""

import pytest

from tests.fault.outage import outage

DIRTY_ORDERS_MAX = 3_000
GROWTH_MIB_MAX = 40.0
"""Far above what an allocator does by itself, and below what some seconds of orders would take."""


@pytest.mark.timeout(240)
async def test_an_outage_of_the_record_ends_at_the_watermark_and_costs_nothing() -> None:
    """Above the watermark orders are refused, reads go on, and nothing grows."""
    came = await outage(
        "embedded", seconds=15, orders_per_second=800, dirty_orders_max=DIRTY_ORDERS_MAX
    )
    assert list(came.verdict.violations) == []
    full = [look for look in came.looks if look.dirty >= DIRTY_ORDERS_MAX]
    assert full, came.looks[-1]
    assert full[-1].api_mib - full[0].api_mib < GROWTH_MIB_MAX
    assert full[-1].workers_mib - full[0].workers_mib < GROWTH_MIB_MAX
