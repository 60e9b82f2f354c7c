"""Bugs to be found: one line of product code each, replaced before the code is loaded.

`REVERTED` takes back what mended a fault that real processes or earlier runs had shown; `PLANTED`
are mistakes of the kind that a change could make. `python -m tests.simulation.planted NAME`
simulates with one of them, and ends with 1 once a run has failed.
"""

import argparse
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Bug(NamedTuple):
    """One line of a module, and what stands there instead."""

    name: str
    module: str
    old: str
    new: str
    first_seed: int = 0
    """Of the search: what is rare is found soon from there."""


REVERTED: Sequence[Bug] = (
    Bug(
        "a longer bulk under a dirty one's key is answered with ids that are not stored",
        "flows.intake.accept",
        "if not there or len(there) == len(unit.members):",
        "if True:",
    ),
    Bug(
        "an import whose first attempt is unknown and whose last is refused says 503",
        "api.orders.importing",
        "if unknown and not isinstance(cause, UnknownOutcomeError):",
        "if unknown and not unknown:",
    ),
    Bug(
        "a keyed import is resumed by the line numbers of the new body",
        "api.orders.importing",
        "LineSplitter(self.limits.import_line_bytes_max, query.first_line)",
        "LineSplitter(self.limits.import_line_bytes_max)",
    ),
    Bug(
        "a message that was handed back does not end the quiet time",
        "flows.reading.cold_cache",
        "        await cache.end_warming()\n",
        "        return\n",
        first_seed=570,
    ),
    Bug(
        "deliveries are held for as long as persisting takes",
        "worker.persister",
        "deadline = _Deadline(held_since + self.limits.delivery_hold_seconds_max, stop)",
        "deadline = _Deadline(held_since + 3_600.0, stop)",
        first_seed=490,
    ),
    Bug(
        "a retry of a dirty order is published each time",
        "flows.intake.group_commit",
        "if again and not await self._is_safe(reply):",
        "if again:",
    ),
    Bug(
        "an order is acknowledged that only a primary with a lagging replica holds",
        "flows.intake.group_commit",
        "return await self._cache.survives_failover(reply.reign)",
        "return True",
        first_seed=550,
    ),
    Bug(
        "a discard that the cache has lost is undone",
        "flows.watch.audit_cache",
        "rows = [one.accepted for one in lost if one.state is EntryState.CLEAN]",
        "rows = [one.accepted for one in lost]",
    ),
)

PLANTED: Sequence[Bug] = (
    Bug(
        "the epoch is not raised when the cache is bypassed",
        "flows.reading.cold_cache",
        "        epoch = await self._record.new_epoch()\n        self._marked_at",
        '        epoch = ""\n        self._marked_at',
        first_seed=290,
    ),
    Bug(
        "a copy in a volatile cache is enough",
        "flows.intake.group_commit",
        "if not reply.durable:\n            return False",
        "if not reply.durable:\n            return True",
    ),
    Bug(
        "refused and unknown together are refused",
        "flows.intake.group_commit",
        "if all(isinstance(error, UnavailableError)",
        "if any(isinstance(error, UnavailableError)",
    ),
    Bug(
        "without the cache, a publish that failed is a publish",
        "flows.intake.group_commit",
        "if queue_error is not None:\n            return _neither",
        "if False:\n            return _neither",
    ),
    Bug(
        "a message is acknowledged and not persisted",
        "worker.persister",
        'await self._insist(partial(self.flow.persist, orders, "queue"), deadline)',
        "[]",
    ),
    Bug(
        "the sweeper leaves what an empty queue has passed",
        "flows.behind.sweep",
        "return now if ready == 0 or is_stuck else self._progress.passed",
        "return self._progress.passed",
    ),
    Bug(
        "the sweeper never finds anything stale",
        "flows.behind.sweep",
        "if oldest is None or oldest >= bound:",
        "if oldest is not None or bound:",
    ),
    Bug(
        "a cold cache proves an absence",
        "flows.reading.read",
        "if cached.raw is not None or cached.epoch is None or cached.epoch != fate.epoch:",
        "if cached.raw is not None:",
    ),
    Bug(
        "a promoted standby is taken for the primary that it followed",
        "flows.watch.heal",
        "elif not position.follows(compared):",
        "elif position.written < compared.written - 1_000:",
    ),
    Bug(
        "what a failover lost is counted and not persisted",
        "flows.watch.heal",
        "entries = await self._cache.run(tally, paced, repair=True)",
        "entries = await self._cache.run(tally, paced, repair=False)",
    ),
    Bug(
        "orders count as indexed that no index has taken",
        "flows.behind.index",
        "failures = await self.search.index(orders)",
        "failures: Sequence[IndexFailure] = ()",
    ),
    Bug(
        "a queue that cannot be counted is empty",
        "flows.reading.cold_cache",
        "return False  # an unknown count proves nothing",
        "return True",
    ),
    Bug(
        "an order that contradicts the record is dropped",
        "flows.behind.persist",
        "if persisted.conflicts:\n            settled +=",
        "if False:\n            settled +=",
    ),
    Bug(
        "a worker takes the messages of a newer version",
        "worker.persister",
        "ours = [d for d in deliveries if d.schema <= codec.SCHEMA_VERSION]",
        "ours = list(deliveries)",
    ),
    Bug(
        "an import tries a line of unknown outcome under a new id",
        "api.orders.importing",
        "again.append(_tried(pending, outcome.id))",
        "again.append(pending._replace(may_be_stored=True))",
    ),
    Bug(
        "an import that gives up calls its last lines accepted",
        "api.orders.importing",
        "raise _StoppedError(cause, todo)",
        "raise _StoppedError(cause)",
    ),
    Bug(
        "an import that is cut short by a stop is complete",
        "api.orders.importing",
        '                cause = refused("the server is stopping")',
        "                cause = None",
    ),
    Bug(
        "a bulk is answered before it is committed",
        "flows.intake.accept",
        "await asyncio.shield(self.commit.submit(unit, has_identity=False))",
        "self.commit.submit(unit, has_identity=False)",
    ),
    Bug(
        "a look-up is shared with questions that come after it",
        "runtime.batching",
        "futures = [self._shared.pop(key) for key in keys]",
        "futures = [self._shared[key] for key in keys]",
    ),
    Bug(
        "new orders are not published",
        "flows.intake.group_commit",
        "publishing = asyncio.ensure_future(self._publish(free))",
        "publishing = asyncio.ensure_future(self._publish([]))",
    ),
    Bug(
        "the last message of a batch is not acknowledged",
        "worker.persister",
        "await consumer.ack(batch)",
        "await consumer.ack(batch[:-1])",
    ),
    Bug(
        "a batch with a poisoned order is condemned for it",
        "flows.behind.persist",
        "        if len(units) == 1:\n",
        "        if units:\n",
    ),
)

BUGS = {bug.name: bug for bug in (*REVERTED, *PLANTED)}


class _Planting(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Loads one module with its bug, and leaves all others to Python."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug
        self._name = f"polyglot_persistence.{bug.module}"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert found is not None
        assert found.origin is not None
        self._path = Path(found.origin)
        return importlib.util.spec_from_loader(fullname, self, origin=found.origin)

    def get_source(self, _fullname: str) -> str:
        source = self._path.read_text()
        if source.count(self._bug.old) != 1:
            raise SystemExit(f"{self._bug.module} has {self._bug.old!r} not exactly once")
        return source.replace(self._bug.old, self._bug.new)


def main() -> int:
    """Plant a bug and look for it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("name", choices=BUGS, metavar="NAME")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, help="the first one, instead of the bug's own")
    options = parser.parse_args()
    bug = BUGS[options.name]
    sys.meta_path.insert(0, _Planting(bug))
    return _look(bug.first_seed if options.seed is None else options.seed, options.runs)


def _look(first: int, runs: int) -> int:
    # Only now: the module with the bug is among what these import.
    from tests.simulation import determined  # noqa: PLC0415
    from tests.simulation.plan import cells  # noqa: PLC0415
    from tests.simulation.runs import simulate  # noqa: PLC0415
    from tests.simulation.scenario import make_plan  # noqa: PLC0415

    determined.install()
    gc.collect()
    gc.freeze()
    for seed in range(first, first + runs):
        violations = simulate(make_plan(seed, cells())).violations
        if violations:
            print(f"seed {seed}: {'; '.join(violations[:2])}")
            return 1
    print(f"nothing was found in {runs} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
