"""The record of the last run that counted, the table made of it, and the comparison with it."""

import re
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.figures import BenchResult, Figure, number, spread

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "bench" / "record.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = {
    PAGE.with_name("benchmarks-ratios.svg"): "Ratios to the Go peer",
    PAGE.with_name("benchmarks-growth.svg"): "Growth with the orders stored",
}
_BEGIN, _END = "<!-- figures, by make bench -->", "<!-- end of figures -->"


def read(path: Path) -> dict[str, BenchResult]:
    """Return the results of a file by bench; none if there is no file."""
    if not path.exists():
        return {}
    return {
        result.name: result
        for result in msgspec.json.decode(path.read_bytes(), type=list[BenchResult])
    }


def write(path: Path, results: dict[str, BenchResult]) -> None:
    """Write results so that a change of one figure is one line of a diff."""
    encoded = msgspec.json.encode(list(results.values()))
    path.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")


def table(results: Sequence[BenchResult]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| what | this project | Go peer | ratio | goal | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(figure) for result in results for figure in result.figures]
    return "\n".join(lines)


def _row(figure: Figure) -> str:
    unit = "" if figure.unit == "times" else f" {figure.unit}"
    goal = ""
    if figure.goal is not None:
        is_ratio = figure.goal.kind == "ratio"
        sign = {"ratio": "ratio ≥", "at most": "≤", "at least": "≥"}[figure.goal.kind]
        goal = f"{sign} {figure.goal.value:g}{'' if is_ratio else unit}"
    verdict = {None: "", True: "reached", False: "**missed**"}[figure.reached]
    cells = (
        figure.name,
        spread(figure.product) + unit,
        spread(figure.peer) + unit if figure.peer else "",
        spread(figure.ratios) if figure.ratios else "",
        goal,
        verdict,
    )
    return f"| {' | '.join(cells)} |"


def memory_table(results: Sequence[BenchResult]) -> str:
    """Return the resident sets as a table in Markdown: largest, and first to last sample."""
    lines = ["| bench | process | most | from, to |", "|---|---|---|---|"]
    for result in results:
        lines += [
            f"| {result.name} | {one.process} | {one.most:.0f} MB | "
            f"{one.first:.0f}, {one.last:.0f} MB |"
            for one in result.memory
        ]
    return "\n".join(lines)


def machine_line(result: BenchResult) -> str:
    """Return a sentence about machine, versions and commit, in lines that fit a page."""
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    return textwrap.fill(f"Measured {result.at[:10]} at commit {result.commit}; {facts}.", 115)


def compared(old: dict[str, BenchResult], new: dict[str, BenchResult]) -> Iterator[str]:
    """Yield a line for each figure that both have: ratios to the peer if there are any."""
    for name, result in new.items():
        before = {figure.name: figure for figure in old[name].figures} if name in old else {}
        for figure in result.figures:
            if (then := before.get(figure.name)) is None:
                continue
            ratios = bool(then.ratios and figure.ratios)
            was, now = (
                statistics.median(one.ratios if ratios else one.product) for one in (then, figure)
            )
            better = (now >= was) == figure.higher_is_better
            yield (
                f"{figure.name}: {'ratio ' if ratios else ''}{number(was)} -> {number(now)}, "
                f"{abs(now / was - 1):.0%} {'better' if better else 'worse'}"
            )


def put_into_page(results: dict[str, BenchResult]) -> None:
    """Replace the figures on the page."""
    found = list(results.values())
    latest = max(found, key=lambda result: result.at)
    plots = [f"![{title}]({path.name})" for path, title in PLOTS.items() if path.exists()]
    text = "\n\n".join([*plots, table(found), machine_line(latest), memory_table(found)])
    page = PAGE.read_text()
    pattern = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"{_BEGIN}\n{text}\n{_END}", page, count=1))
