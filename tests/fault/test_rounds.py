"""A few rounds of faults with every run of the tests; `make fault` plays as many as wanted."""

import random
from pathlib import Path

import pytest

from tests.fault.faults import Fault
from tests.fault.runs import play_rounds
from tests.fault.topologies import TOPOLOGIES
from tests.support.deployments import NEEDS_SERVERS


def _quick(fault: Fault) -> bool:
    return not fault.slow


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("deployment", "rounds"),
    [
        ("embedded", 8),
        pytest.param("servers", 4, marks=NEEDS_SERVERS),
        *(pytest.param(group, 1, marks=NEEDS_SERVERS) for group in TOPOLOGIES),
    ],
)
async def test_no_fault_costs_or_doubles_an_order(
    deployment: str, rounds: int, tmp_path: Path
) -> None:
    """Whatever happens under load, in the end all stores have what was acknowledged, once."""
    seed = random.randrange(1_000_000)
    totals = await play_rounds(tmp_path / "state.json", deployment, rounds, seed, _quick)
    print(totals.line(seed))
    assert not totals.violated, totals.line(seed)
