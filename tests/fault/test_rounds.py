"""A few rounds of faults with every run of the tests; `make fault` plays as many as wanted."""

import random
from pathlib import Path

import pytest

from tests.fault.runs import play_rounds

EMBEDDED_ROUNDS = 8


@pytest.mark.timeout(420)
async def test_no_fault_costs_or_doubles_an_order(tmp_path: Path) -> None:
    """Whatever happens under load, in the end all stores have what was acknowledged, once."""
    seed = random.randrange(1_000_000)
    totals = await play_rounds(tmp_path / "state.json", "embedded", EMBEDDED_ROUNDS, seed, "")
    print(totals.line(seed))
    assert not totals.violated, totals.line(seed)
