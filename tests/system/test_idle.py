"""A system with nothing to do asks its stores little: every loop pauses between two looks."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polyglot_persistence.embedded.postgres import EmbeddedPostgres
from tests.support.eventually import eventually
from tests.support.own_valkey import OwnValkey
from tests.support.stand import HEALED_SECONDS, Stand, stand_on

pytestmark = pytest.mark.timeout(240)

SWEEPS = 20
"""Of the one worker that sweeps."""
PER_SWEEP_MAX = 6
"""Of each command, from all processes. A loop without a pause asks far more often."""


@pytest_asyncio.fixture
async def stand(postgres_server: EmbeddedPostgres) -> AsyncIterator[Stand]:
    async with stand_on(postgres_server) as stand:
        yield stand


async def test_a_system_at_rest_asks_its_stores_little(stand: Stand) -> None:
    """Counted against its sweeps, so that a busy machine changes nothing."""
    api = await stand.api()
    for _ in range(2):
        stand.worker()
    assert (await api.place()).status == 202
    await stand.all_persisted()
    await api.is_warm()
    before = await asked(stand)
    wanted = before["cache zrange"] + SWEEPS

    async def swept() -> None:
        assert (await calls(stand.cache))["zrange"] >= wanted

    await eventually(swept, within_seconds=HEALED_SECONDS)
    since = await asked(stand)
    since.subtract(before)
    for own in ("cache info", "cache select"):
        del since[own]
    assert max(since.values()) <= SWEEPS * PER_SWEEP_MAX, since.most_common(5)


async def asked(stand: Stand) -> Counter[str]:
    """Return how often each store was asked for what since it began."""
    counts = Counter({"transactions": await stand.record.value(TRANSACTIONS)})
    for name, server in (("cache", stand.cache), ("queue", stand.queue)):
        counts.update({f"{name} {command}": n for command, n in (await calls(server)).items()})
    return counts


TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


async def calls(server: OwnValkey) -> dict[str, int]:
    stats = (await server.say("INFO", "commandstats")).decode()
    lines = [line.removeprefix("cmdstat_") for line in stats.splitlines() if "calls=" in line]
    return {
        line.partition(":")[0]: int(line.partition("calls=")[2].partition(",")[0]) for line in lines
    }
