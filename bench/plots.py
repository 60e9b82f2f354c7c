"""The plots of `docs/benchmarks.md`: ratios to the peer, and growth with the orders stored."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Canvas

from bench.figures import BenchResult
from bench.report import PLOTS

RATIOS, GROWTH = PLOTS

# The same figures give the same file, byte for byte.
mpl.rcParams.update({"svg.hashsalt": "bench", "font.family": "sans-serif", "figure.dpi": 100})
_METADATA = {"Date": None}
_OURS, _GOAL = "#2a6f97", "#c1121f"


def draw(results: Mapping[str, BenchResult]) -> None:
    """Write the plots for which there are figures."""
    ratios(results)
    if "growth" in results:
        growth(results["growth"])


def ratios(results: Mapping[str, BenchResult]) -> None:
    """Write a bar a figure: how many times the peer's, with its goal."""
    found = [
        figure
        for result in results.values()
        for figure in result.figures
        if figure.ratios and figure.higher_is_better
    ]
    if not found:
        return
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(found) + 1.2))
    for row, one in enumerate(found):
        middle = statistics.median(one.ratios)
        low, high = middle - min(one.ratios), max(one.ratios) - middle
        axes.barh(row, middle, xerr=[[low], [high]], color=_OURS, capsize=3, height=0.6)
        if one.goal is not None:
            axes.plot([one.goal.value] * 2, [row - 0.4, row + 0.4], color=_GOAL, linewidth=2)
    axes.set_yticks(range(len(found)), [one.name for one in found])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times the Go peer, in the same run (red: goal; whiskers: rounds)")
    _save(figure, RATIOS)


def growth(result: BenchResult) -> None:
    """Write a line a bench: its rate by the number of orders stored, as a part of the first."""
    figure, axes = plt.subplots(figsize=(8, 4))
    cases: dict[str, list[tuple[int, float]]] = {}
    for one in result.figures:
        if one.stored:
            case = one.name.partition(",")[0]
            cases.setdefault(case, []).append((one.stored, statistics.median(one.product)))
    for case, points in cases.items():
        first = points[0][1]
        axes.plot(
            [stored for stored, _ in points],
            [rate / first for _, rate in points],
            marker="o",
            label=f"{case} ({first:,.0f}/s at first)",
        )
    axes.axhline(0.75, color=_GOAL, linewidth=1, linestyle="--", label="goal")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("orders stored")
    axes.set_ylabel("rate, as a part of that with the fewest")
    axes.legend()
    _save(figure, GROWTH)


def _save(figure: Canvas, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata=_METADATA)
    plt.close(figure)
