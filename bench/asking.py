"""How fast a deployment answers: searches, completions, facets and sales over the real orders."""

from collections.abc import Sequence

from bench.figures import Figure, Goal
from bench.open_loop import OpenLoop, get, percentile
from bench.questions import first_letters, sales, searches, typed
from bench.stand import Stand
from bench.wrk import Load, load

CONNECTIONS = 16
KEYS_PER_SECOND = 50.0
"""Of ten people, each five."""

TYPED = 20_000
SUGGEST_GOAL = Goal("at most", 20)
FIRST_DAY, END = "2017-01-01", "2018-01-01"
"""The year of the data set."""

PROBE_SECONDS = 3.0
"""Also so that a cluster that has only indexed so far is at its speed."""
SPARE = 0.75
"""The part of the questions that may be used up at the rate of the probe."""


async def searching(stand: Stand, asked: Sequence[str]) -> list[Figure]:
    """Measure searches that nobody has asked before, and the same ones asked again.

    Raises:
        RuntimeError: there were fewer questions than answers, so that some were not new.
    """
    file = stand.file("searches-probe", asked)
    probe = await load(stand.side.url, file, seconds=PROBE_SECONDS, connections=CONNECTIONS)
    left = asked[probe.requests + CONNECTIONS :]
    # wrk takes whole seconds.
    seconds = max(1, int(min(stand.context.seconds(6, 8), SPARE * len(left) / probe.rate)))
    new = await _closed_loop(stand, "searches", left, seconds)
    if new.requests > len(left):
        raise RuntimeError(f"{new.requests} answers to {len(left)} different questions")
    again = await _closed_loop(stand, "searches-again", left[: new.requests], seconds)
    return [
        stand.figure(f"search, {kind}, {what}", unit, value)
        for kind, found in (("new questions", new), ("asked again", again))
        for what, unit, value in (
            ("16 connections", "answers/s", found.rate),
            ("p50", "ms", found.p50_ms),
            ("p99", "ms", found.p99_ms),
        )
    ]


async def suggesting(stand: Stand) -> list[Figure]:
    """Measure completions as ten people type, and over as many connections as searches have."""
    ordered = await stand.ordered()
    paths = typed(ordered, TYPED)
    latencies = await _typing(stand, paths, stand.context.seconds(40, 120))
    found = await _closed_loop(stand, "completions", paths, stand.context.seconds(5, 10))
    letters = first_letters(ordered)
    slowest = max(await _typing(stand, letters, len(letters) / KEYS_PER_SECOND))
    return [
        stand.figure("suggest at 50/s, p50", "ms", percentile(latencies, 50)),
        stand.figure("suggest at 50/s, p99", "ms", percentile(latencies, 99), SUGGEST_GOAL),
        stand.figure("suggest, 16 connections, p50", "ms", found.p50_ms),
        stand.figure("suggest, 16 connections, p99", "ms", found.p99_ms),
        stand.figure("suggest, each first letter at 50/s, slowest", "ms", slowest),
    ]


async def _typing(stand: Stand, paths: Sequence[str], seconds: float) -> list[float]:
    """Ask as keys are pressed; return what each waited, in milliseconds.

    Raises:
        RuntimeError: an answer was no success.
    """
    requests = [get(path) for path in paths]
    async with OpenLoop(stand.side.url) as clients:
        answers = await clients.run(requests, rate=KEYS_PER_SECOND, seconds=seconds)
    if failed := [answer for answer in answers if answer.status != 200]:
        raise RuntimeError(f"{len(failed)} completions failed: {failed[0]}")
    lates = [answer.late_ms for answer in answers]
    stand.context.tell(f"completions were asked {percentile(lates, 99):.1f} ms late (p99)")
    return [answer.latency_ms for answer in answers]


async def counting(stand: Stand, asked: Sequence[str]) -> list[Figure]:
    """Measure searches with facets, and the sales of the year."""
    products = list(await stand.ordered())
    questions = {
        "search with facets": [f"{path}&facets=true" for path in asked],
        "sales of the year by day": [sales(FIRST_DAY, END)],
        "sales of a product by month": [sales(FIRST_DAY, END, product) for product in products],
    }
    seconds = stand.context.seconds(5, 10)
    figures = []
    for what, paths in questions.items():
        found = await _closed_loop(stand, what.replace(" ", "-"), paths, seconds)
        figures.append(stand.figure(f"{what}, 16 connections, p99", "ms", found.p99_ms))
    return figures


async def figures(stand: Stand) -> list[Figure]:
    """Measure everything that is asked."""
    asked = searches(await stand.ordered())
    return [
        *await searching(stand, asked),
        *await suggesting(stand),
        *await counting(stand, asked),
    ]


async def _closed_loop(stand: Stand, name: str, paths: Sequence[str], seconds: float) -> Load:
    file = stand.file(name, paths)
    return await stand.context.closed_loop(
        stand.side, name, file, seconds=seconds, connections=CONNECTIONS
    )
