"""One deployment with the real orders, and what its figures are called."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.context import Context
from bench.figures import Figure, Goal, number
from bench.processes import run_to_end
from bench.sides import PROGRAM, Product

COMMAND_SECONDS = 3_600.0
"""Nothing that an operator starts here has taken a third of it."""


class CommandError(Exception):
    """A command failed, or what it told is not what was to come."""


class Done(NamedTuple):
    """What a command told as JSON, and how long it ran, with its start."""

    told: Any
    seconds: float


@dataclass(frozen=True)
class Stand:
    """A deployment in one run of the benches."""

    context: Context
    side: Product
    name: str
    orders_per_second: float
    """So many arrive while operators do something: far from all that it could take."""

    def figure(self, what: str, unit: str, value: float, goal: Goal | None = None) -> Figure:
        """Return a figure and tell it; what is counted in seconds is better if it is less."""
        name = f"real orders, {self.name}: {what}"
        self.context.tell(f"{name}: {number(value)} {unit}")
        return Figure(name, unit, [value], goal=goal, higher_is_better=unit not in ("s", "ms"))

    def file(self, name: str, lines: Iterable[str]) -> Path:
        """Write lines for wrk."""
        path = self.context.directory / f"{name}-{self.name}"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    async def polyglot(self, *words: str, more: Mapping[str, str] | None = None) -> Done:
        """Run a command on the stores of the deployment, with `more` settings if it needs them.

        Raises:
            CommandError: its exit code is not 0.
            TimeoutError: it was stopped after `COMMAND_SECONDS`.
        """
        log = self.context.logs / "commands.log"
        with log.open("ab") as errors:
            async with asyncio.timeout(COMMAND_SECONDS):
                started = time.perf_counter()
                code, output = await run_to_end(
                    [*PROGRAM, *words, "--json"],
                    {**self.side.environment, **(more or {})},
                    errors=errors,
                )
                seconds = time.perf_counter() - started
        if code:
            told = output.decode(errors="replace")[:2_000]
            raise CommandError(f"polyglot {' '.join(words)}: exit code {code}: {told}; see {log}")
        return Done(msgspec.json.decode(output), seconds)

    async def ordered(self) -> Mapping[str, int]:
        """Return how often each product was ordered."""
        rows = await self.side.record.fetch(
            "SELECT product_name, sum(orders)::bigint FROM sales_product_days GROUP BY 1 ORDER BY 1"
        )
        return {row[0]: row[1] for row in rows}
