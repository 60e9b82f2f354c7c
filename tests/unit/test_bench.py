"""The benchmarks' own arithmetic: ratios, goals, the page, and latencies that hide no stall."""

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.figures import BenchResult, Figure, Goal
from bench.open_loop import OpenLoop, percentile, post

ROOT = Path(__file__).parents[2]


def test_the_ratio_is_that_of_each_round() -> None:
    """A round in which the machine was slow has the ratio of any other."""
    figure = Figure("accept", "orders/s", [300, 30, 280], [100, 10, 100], Goal("ratio", 2.9))
    assert figure.ratios == [3, 3, 2.8]
    assert figure.reached is True


def test_a_goal_without_the_peer_is_neither_reached_nor_missed() -> None:
    """Nobody can say."""
    assert Figure("accept", "orders/s", [300], goal=Goal("ratio", 2)).reached is None


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal("at most", 30), True),
        (Goal("at most", 29), False),
        (Goal("at least", 30), True),
        (Goal("at least", 31), False),
    ],
)
def test_goals_are_of_the_median(goal: Goal, reached: bool) -> None:
    """One bad round does not decide."""
    assert Figure("lag", "ms", [10, 30, 500], goal=goal).reached is reached


def _result(name: str, *figures: Figure) -> BenchResult:
    return BenchResult(
        name, "2026-01-31T12:00:00+00:00", "abc", 1.0, quick=True, figures=[*figures]
    )


def test_the_page_gets_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They replace those of before, and nothing else."""
    page = tmp_path / "benchmarks.md"
    page.write_text(report.PAGE.read_text())
    monkeypatch.setattr(report, "PAGE", page)
    for rate in (100, 12_345):
        figure = Figure("accept", "orders/s", [rate], [50], Goal("ratio", 1.5))
        report.put_into_page({"accept": _result("accept", figure)})
    text = page.read_text()
    assert (
        text.count("| accept | 12,345 orders/s | 50 orders/s | 247 | ratio ≥ 1.5 | reached |") == 1
    )
    assert text.count("\n| accept | ") == report.PAGE.read_text().count("\n| accept | ") + (
        "| accept | 1" not in report.PAGE.read_text()
    )
    assert "## What was tried" in text


def test_what_got_worse_is_told() -> None:
    """By the ratio, whatever the machine of the day took."""
    old = {"accept": _result("accept", Figure("accept", "orders/s", [300], [100]))}
    new = {"accept": _result("accept", Figure("accept", "orders/s", [30], [12]))}
    assert list(report.compared(old, new)) == ["accept: ratio 3 -> 2.5, 17% worse"]


def test_make_has_the_targets_that_the_contributors_page_names() -> None:
    """A target whose name is a directory's is otherwise silently nothing to be done."""
    named = re.findall(
        r"^\| `make ([a-z-]+)`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    makefile = (ROOT / "Makefile").read_text()
    assert "bench" in named
    assert [name for name in named if f"\n.PHONY: {name}\n{name}:" not in makefile] == []


async def test_a_stall_delays_all_that_was_due_in_it() -> None:
    """A closed loop would see one slow request a connection; a user who comes meanwhile waits."""
    stalled = asyncio.Event()
    requests = 0
    serving: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        serving.append(asyncio.current_task())
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                requests += 1
                if requests == 100:
                    asyncio.get_running_loop().call_later(0.2, stalled.set)
                if requests >= 100:
                    await stalled.wait()
                writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with OpenLoop(f"http://{host}:{port}") as clients:
        answers = await clients.run([post("/", b"{}")], rate=1_000, seconds=0.5)
    server.close()
    await server.wait_closed()
    await asyncio.gather(*serving)
    assert len(answers) == 500
    assert {answer.status for answer in answers} == {202}
    delayed = [answer for answer in answers if answer.latency_ms > 50]
    # Some 200 were due in the 0.2 s, three quarters of them more than 50 ms before its end.
    assert len(delayed) > 100
    assert percentile([answer.latency_ms for answer in answers], 99) > 150
