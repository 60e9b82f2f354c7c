"""The loops by their names: those that the documents list, and how far each one says it is."""

import ast
import asyncio
import re
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from polyglot_persistence.telemetry import REGISTRY
from polyglot_persistence.worker.rebuilder import LOOP, rebuild_forever
from tests.support.documents import ROOT


def _loops_in(source: str) -> set[str]:
    """Return the names that loops of a module count their successes under."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    place = {"repeat": 0, "repeat_as_leader": 1, "LOOP_SUCCESS.labels": 0}
    named = [
        node.args[place[function]]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (function := ast.unparse(node.func)) in place
    ]
    return {
        str(one.value if isinstance(one, ast.Constant) else constants[ast.unparse(one)])
        for one in named
        if ast.unparse(one) not in {"name", "role"}  # what `repeat` itself was given
    }


def test_the_documents_list_every_loop() -> None:
    """No more and no fewer, and each is a word that needs no quotes in a query."""
    modules = (ROOT / "src").rglob("*.py")
    loops = {name for path in modules for name in _loops_in(path.read_text())}
    page = (ROOT / "docs" / "ops.md").read_text()
    row = re.search(
        r"^\| `polyglot_loop_last_success_timestamp_seconds` \|([^|]*)\|", page, re.MULTILINE
    )
    assert row
    assert set(re.findall(r"`(\w+)`", row[1])) - {"loop"} == loops
    assert all(re.fullmatch("[a-z_]+", name) for name in loops)


async def test_a_rebuild_that_goes_on_is_not_a_loop_that_is_stuck() -> None:
    """Each step of it counts: a rebuild of many orders takes longer than an alert waits."""

    def last_success() -> float | None:
        return REGISTRY.get_sample_value(
            "polyglot_loop_last_success_timestamp_seconds", {"loop": LOOP}
        )

    stop = asyncio.Event()
    seen: list[bool] = []

    async def run(show: Any) -> None:
        for _ in range(3):
            before = last_success() or 0.0
            await show(None)
            seen.append((last_success() or 0.0) > before)
        stop.set()

    async def adopt_settings() -> None: ...

    async def is_needed() -> bool:
        return True

    async def confirm() -> None: ...

    @asynccontextmanager
    async def lead(_role: str) -> Any:
        yield SimpleNamespace(confirm=confirm)

    await rebuild_forever(
        cast("Any", SimpleNamespace(adopt_settings=adopt_settings, is_needed=is_needed, run=run)),
        cast("Any", SimpleNamespace(lead=lead)),
        stop,
        interval_seconds=1.0,
    )
    assert seen == [True, True, True]
