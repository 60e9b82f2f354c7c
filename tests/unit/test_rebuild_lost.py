"""When an index of which a part is lost is built anew, and how often."""

from dataclasses import replace
from typing import cast

import pytest

from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.adapters.elasticsearch.rebuild import ElasticsearchTarget
from polyglot_persistence.config import load
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.projections.rebuild import RebuildFlow
from tests.simulation.stores.record import RecordServer
from tests.simulation.stores.search import SimulatedTarget
from tests.support.records import SimulatedRecord
from tests.support.scripted import FakeClock
from tests.support.search_simulated import Simulated

LOST_SECONDS = 300.0


class LosingTarget(SimulatedTarget):
    """One whose parts a test loses."""

    lost: tuple[str, ...] = ()

    async def lost_parts(self) -> tuple[str, ...]:
        return self.lost


def rebuilding(clock: FakeClock, target: LosingTarget) -> tuple[RebuildFlow, SimulatedRecord]:
    """Return a flow that gives a lost index little time, and its record."""
    record = SimulatedRecord(RecordServer(clock))
    limits = replace(load({}).index, search_lost_seconds=LOST_SECONDS)
    flow = RebuildFlow(
        record.rebuild(), record.audit(), target, record.store(), clock, limits=limits
    )
    return flow, record


async def test_an_index_is_built_anew_only_if_it_stays_lost() -> None:
    """A node that restarts comes back before that; each rebuild waits for its own time."""
    clock, target = FakeClock(), LosingTarget(Simulated().server)
    flow, _ = rebuilding(clock, target)
    first = (await flow.run()).index_name
    assert not await flow.is_needed()
    target.lost = (first,)
    for _ in range(3):  # it is back each time before its time is over
        assert not await flow.is_needed()
        clock.advance(LOST_SECONDS - 1)
        assert not await flow.is_needed()
        target.lost = ()
        clock.advance(2)
        assert not await flow.is_needed()
        target.lost = (first,)
    assert not await flow.is_needed()
    clock.advance(LOST_SECONDS)
    assert await flow.is_needed()
    second = (await flow.run()).index_name
    assert second != first
    assert await target.current_name() == second
    target.lost = (second,)  # the new one, too
    assert not await flow.is_needed()
    clock.advance(LOST_SECONDS - 1)
    assert not await flow.is_needed()
    clock.advance(1)
    assert await flow.is_needed()


async def test_a_lost_index_that_was_being_built_is_given_up() -> None:
    """Another process died while it built it; the one that resumes begins a new one."""
    clock, target = FakeClock(), LosingTarget(Simulated().server)
    flow, record = rebuilding(clock, target)
    building = (await record.rebuild().begin(await target.begin())).index_name
    target.lost = (building,)
    assert await flow.is_needed()
    assert (await flow.run()).index_name == building  # not for long enough
    other = (await record.rebuild().begin(await target.begin())).index_name
    target.lost = (other,)
    await flow._lost()
    clock.advance(LOST_SECONDS)
    built = await flow.run()
    assert built.index_name != other
    assert not built.resumed


async def test_a_cluster_that_is_away_leaves_nothing_behind() -> None:
    """No question that was begun and never asked, of which Python would warn."""

    class Away:
        async def behind_alias(self) -> None:
            raise UnavailableError("Elasticsearch: cannot be reached")

    index = cast("ElasticsearchIndex", Away())
    with pytest.raises(UnavailableError):
        await ElasticsearchTarget(index, index, shards=1).lost_parts()
