"""What every bench is given: the sides, how long to measure, and where to put files."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Memory
from bench.orders import Files, Line
from bench.processes import Process
from bench.sides import Peer, Product, Side
from bench.wrk import Load, load

SAMPLE_SECONDS = 0.25


@dataclass
class Context:
    """One run of the benches."""

    product: Product
    peer: Peer | None
    lines: list[Line]
    files: Files
    directory: Path
    logs: Path
    quick: bool
    begun: float = field(default_factory=time.monotonic)
    others: list[Side] = field(default_factory=list)
    """Sides that one bench starts for itself; their memory is sampled, too."""

    @property
    def rounds(self) -> int:
        """How often the sides take turns."""
        return 3 if self.quick else 5

    def seconds(self, quick: float, full: float) -> float:
        """Return how long to measure."""
        return quick if self.quick else full

    def tell(self, text: str) -> None:
        """Tell of the progress."""
        elapsed = time.monotonic() - self.begun
        sys.stderr.write(f"bench: {elapsed:4.0f} s  {text}\n")
        sys.stderr.flush()

    def sides(self) -> "Sequence[Product | Peer]":
        """Return the sides in the order of their turns."""
        return [self.product] if self.peer is None else [self.peer, self.product]

    async def closed_loop(self, side: Side, what: str, lines: Path, **options: Any) -> Load:
        """Load one side's API as `wrk.load` does, and tell what came of it."""
        before = side.api.cpu_seconds()
        found = await load(side.url, lines, **options)
        cpu = (side.api.cpu_seconds() - before) / found.requests
        self.tell(
            f"{what}, {side.name}: {found.rate:,.0f}/s, p50 {found.p50_ms:.1f} ms, "
            f"p99 {found.p99_ms:.1f} ms, {cpu * 1e6:.1f} us of processor time each"
        )
        return found

    @contextlib.asynccontextmanager
    async def memory(self) -> AsyncIterator[list[Memory]]:
        """Sample the memory of all processes; the list is filled at the end."""
        self.others.clear()
        found: list[Memory] = []
        for process in self._processes():
            process.memory_mb = []
        sampling = asyncio.create_task(self._sample())
        try:
            yield found
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling
            found += [
                Memory(process.name, samples[0], samples[-1], max(samples))
                for process in self._processes()
                if (samples := process.memory_mb)
            ]

    def _processes(self) -> list[Process]:
        sides = [*self.sides(), self.product.two, *self.others]
        return [process for side in sides for process in (side.api, side.worker)]

    async def _sample(self) -> None:
        while True:
            for process in self._processes():
                process.sample_memory()
            await asyncio.sleep(SAMPLE_SECONDS)
