"""Closed-loop load: `connections` clients, each of which asks again as soon as it is answered.

Its latencies are those of a client that waits for its turn; `open_loop` has those of one who does
not.
"""

import asyncio
from pathlib import Path

import msgspec

from bench.processes import run_to_end

SCRIPT = Path(__file__).with_name("load.lua")

THREADS = 1
"""One thread sends above 100,000 requests a second; a second one takes a core from the servers."""


class Load(msgspec.Struct):
    """What one run of wrk saw."""

    requests: int
    seconds: float
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


class LoadError(Exception):
    """The figures would be those of failures."""


async def load(
    url: str,
    lines: Path,
    *,
    seconds: float,
    connections: int,
    path: str | None = None,
    rate: float = 0,
    may_fail: bool = False,
) -> Load:
    """Send the lines of a file: as bodies of POSTs to `path`, or else as paths of GETs.

    Raises:
        LoadError: an answer was no success, unless it `may_fail`.
    """
    command = [
        *("wrk", f"-t{THREADS}", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"),
        *("-s", str(SCRIPT), url, "--"),
        *("GET" if path is None else "POST", path or "-", str(lines), str(rate), str(THREADS)),
    ]
    code, output = await run_to_end(command, errors=asyncio.subprocess.STDOUT)
    text = output.decode(errors="replace")
    report = next((line for line in text.splitlines() if line.startswith('{"requests"')), None)
    if code or report is None:
        raise LoadError(f"wrk failed: {text}")
    found = msgspec.json.decode(report, type=Load)
    if found.failed and not may_fail:
        raise LoadError(f"{found.failed} of {found.requests} requests failed at {url}{path or ''}")
    return found
