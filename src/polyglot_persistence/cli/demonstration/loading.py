"""`polyglot load`: sends order lines through the API, then compares its answers with the file.

```
  read a chunk --> POST /api/orders/import --> refresh, read the sales --> compare every day
                     ^           |  503, 504, cut          ^        |
                     +--backoff--+                         +--wait--+  until all is persisted
                  the lines that are open
```

Invariant: sending a line twice is harmless (it has its own id), so every failure that is not the
chunk's own fault is answered by sending again what is open of it: all of it after a lost answer,
after a problem what this neither counts nor rejects.
Invariant: no line is counted twice: each is in one answer's totals.
Invariant: at most one chunk a connection is in memory.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import click

from polyglot_persistence.cli.demonstration import completejourney
from polyglot_persistence.cli.progress import Progress, progress
from polyglot_persistence.cli.reports import as_json, table
from polyglot_persistence.errors import (
    ConfigurationError,
    PolyglotError,
    RejectedError,
    UnavailableError,
)
from polyglot_persistence.runtime.pauses import Pauses

if TYPE_CHECKING:
    import httpx2


CONNECTIONS = 2
CHUNK_LINES = 4_000
"""About 600 KB: enough for the API to commit in full batches, little to send again."""

DAYS_MAX = 36_600
"""As many days as the API gives at once: a hundred years."""

ANSWER_TIMEOUT_SECONDS = 120.0
"""Longer than an import waits inside the API (IMPORT_WAIT_SECONDS)."""

RETRY_SECONDS = 300.0
"""How long one chunk is tried before the load gives up."""

RETRY_PAUSE_SECONDS_MIN = 0.25
RETRY_PAUSE_SECONDS_MAX = 10.0

PERSIST_WAIT_SECONDS = 60.0
"""How long the answer may stand still, and be wrong, before it counts as final."""

SHOWN_MAX = 20
"""Differing days, or rejected lines, that are printed."""

_RETRIED = {408, 425, 429, 500, 502, 503, 504}


class Day(NamedTuple):
    """What one UTC day holds."""

    orders: int
    revenue: Decimal


class Difference(NamedTuple):
    """A day on which file and system differ; `Day(0, 0)` where there is none."""

    day: date
    expected: Day
    found: Day


@dataclass
class Tally:
    """What was sent, as the file has it, and what the API said to it."""

    orders: Counter[date] = field(default_factory=Counter)
    cents: Counter[date] = field(default_factory=Counter)
    accepted: int = 0
    unchanged: int = 0
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)

    def expected(self) -> dict[date, Day]:
        """Return the days of the file."""
        return {
            day: Day(orders, Decimal(self.cents[day]) / 100)
            for day, orders in sorted(self.orders.items())
        }


def run(
    url: str, limit: int | None, api_key: str | None = None, *, for_programs: bool = False
) -> int:
    """Load, compare and print; return the exit code: 0 only if every day is equal to the cent.

    Raises:
        ConfigurationError: the data set is not installed, or `url` is none.
        RejectedError: the API does not take what was sent.
        UnavailableError: the API stayed away.
    """
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise ConfigurationError("--url: not the URL of an API; e.g. http://127.0.0.1:8080")
    lines = min(completejourney.count(), limit or sys.maxsize)
    tally = Tally()
    try:
        differences, seconds = asyncio.run(_run(url.rstrip("/"), lines, api_key, tally))
    except KeyboardInterrupt:
        click.echo(
            f"\nstopped: {tally.accepted + tally.unchanged:,} of {lines:,} orders are in; "
            "run it again to go on: what is there is not stored twice",
            err=True,
        )
        raise
    click.echo(
        outcome(tally, differences, seconds)
        if for_programs
        else report(tally, differences, seconds)
    )
    return int(bool(differences or tally.rejected))


async def _run(
    url: str, lines: int, api_key: str | None, tally: Tally
) -> tuple[list[Difference], float]:
    """Return the days that differ, and how long sending took; count into `tally`."""
    try:
        import httpx2
    except ImportError as error:
        raise ConfigurationError(
            "httpx2 is not installed; run `make datasets` "
            "or `pip install 'polyglot-persistence[datasets]'`"
        ) from error

    limits = httpx2.Limits(max_connections=CONNECTIONS)
    timeout = httpx2.Timeout(ANSWER_TIMEOUT_SECONDS, connect=5.0)
    # No proxy of the environment may come between us and what is often this very machine.
    async with httpx2.AsyncClient(
        base_url=url,
        headers={"X-API-Key": api_key} if api_key else {},
        limits=limits,
        timeout=timeout,
        trust_env=False,
    ) as client:
        await _greet(client)
        identify = await _identification(client)
        started = time.monotonic()
        with progress(lines) as shown:
            await _send(client, _chunks(lines, identify), tally, shown)
            sent_seconds = time.monotonic() - started
            shown.say("waiting until all is persisted")
            differences = await _compare(client, tally.expected())
    return differences, sent_seconds


async def _greet(client: "httpx2.AsyncClient") -> None:
    import httpx2

    try:
        answer = await client.get("/health/live", timeout=5.0)
    except httpx2.TransportError as error:
        reason = str(error) or type(error).__name__
        raise UnavailableError(
            f"no answer from {client.base_url} ({reason}); is `polyglot up` running?"
        ) from error
    if answer.status_code != httpx2.codes.OK:
        raise UnavailableError(
            f"{client.base_url} answers {answer.status_code} to /health/live: not this service?"
        )


async def _identification(client: "httpx2.AsyncClient") -> Callable[[str], UUID]:
    """Return what gives lines their ids: as an earlier version did, if it loaded any of them."""
    import httpx2

    first = json.loads(next(completejourney.read(1, completejourney.earlier_id_of))[0].ndjson)["id"]
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        answer = await client.get(f"/api/orders/{first}")
        if answer.status_code == httpx2.codes.OK:
            return completejourney.earlier_id_of
        if answer.status_code == httpx2.codes.NOT_FOUND:
            return completejourney.id_of
        if answer.status_code not in _RETRIED or time.monotonic() > deadline:
            detail = _said(answer).get("detail", answer.text[:200])
            raise RejectedError(f"order {first} cannot be read ({answer.status_code}): {detail}")
        await asyncio.sleep(RETRY_PAUSE_SECONDS_MIN)


async def _send(
    client: "httpx2.AsyncClient",
    chunks: Iterator[list[completejourney.Line]],
    tally: Tally,
    shown: Progress,
) -> None:
    async def connection() -> None:
        for chunk in chunks:  # shared: each chunk goes to whichever connection is free
            done = await _import(client, [line.ndjson for line in chunk], shown)
            for line in chunk:
                tally.orders[line.day] += 1
                tally.cents[line.day] += line.cents
            tally.accepted += done.accepted
            tally.unchanged += done.unchanged
            tally.rejected += done.rejected
            for error in done.errors[: SHOWN_MAX - len(tally.reasons)]:
                line_text = chunk[error["line"] - 1].ndjson.decode().strip()
                tally.reasons.append(f"{error['detail']}: {line_text}")
            shown.advance(len(chunk))

    first: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(connection())
    except* PolyglotError as failed:
        first = failed.exceptions[0]  # raised here, Python 3.11.2 would put it into a group again
    if first is not None:
        raise first


def _chunks(lines: int, identify: Callable[[str], UUID]) -> Iterator[list[completejourney.Line]]:
    for chunk in completejourney.read(CHUNK_LINES, identify):
        if lines <= 0:
            return
        yield chunk[:lines]
        lines -= len(chunk)


class _Chunk:
    """The lines of one import by their numbers, and what became of those that are done."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines
        self._open = set(range(1, len(lines) + 1))
        self.accepted = 0
        self.unchanged = 0
        self.rejected = 0
        self.errors: list[dict[str, Any]] = []

    @property
    def is_done(self) -> bool:
        """Whether every line is in the totals."""
        return not self._open

    def rest(self) -> tuple[int, bytes]:
        """Return the number of the first open line, and it with all after it.

        A line between them that is done is blank, so that the others keep their numbers.
        """
        first, last = min(self._open), max(self._open)
        parts = [
            self._lines[number - 1] if number in self._open else b"\n"
            for number in range(first, last + 1)
        ]
        return first, b"".join(parts)

    def done(self, answer: dict[str, Any]) -> None:
        """Count what the answer to the rest is about; a problem names the lines that stay open."""
        counts = [int(answer.get(name, 0)) for name in ("accepted", "unchanged", "rejected")]
        errors = answer.get("errors", [])
        still_open: set[int] = set()
        if "lines_read" in answer:
            read, refused = int(answer["lines_read"]), answer.get("lines_not_accepted", ())
            still_open = {n for n in self._open if n > read or n in refused}
            errors = answer.get("lines_rejected", [])
        if sum(counts) != len(self._open) - len(still_open):
            raise RejectedError(f"the API's totals are not those of what was sent: {answer}")
        self.accepted += counts[0]
        self.unchanged += counts[1]
        self.rejected += counts[2]
        self.errors += errors
        self._open = still_open


async def _import(client: "httpx2.AsyncClient", lines: Sequence[bytes], shown: Progress) -> _Chunk:
    """Send a chunk until each of its lines is done; see the module's invariants."""
    import httpx2

    chunk = _Chunk(lines)
    deadline = time.monotonic() + RETRY_SECONDS
    pauses = Pauses(RETRY_PAUSE_SECONDS_MIN, RETRY_PAUSE_SECONDS_MAX)
    while True:
        retry_after = 0.0
        first, body = chunk.rest()
        try:
            answer = await client.post(
                "/api/orders/import",
                params={"first_line": first},
                content=body,
                headers={"Content-Type": "application/x-ndjson"},
            )
        except httpx2.TransportError as error:
            problem = str(error) or type(error).__name__
        else:
            said = _said(answer)
            if answer.status_code == httpx2.codes.OK:
                chunk.done(said)
                return chunk
            problem = f"{answer.status_code} {_detail(answer)}"
            if answer.status_code not in _RETRIED and "lines_read" not in said:
                raise RejectedError(f"the API refuses the import: {problem}")
            if "lines_read" in said:
                chunk.done(said)
                if chunk.is_done:
                    return chunk
            retry_after = _seconds(answer.headers.get("Retry-After", ""))
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"gave up after {RETRY_SECONDS:.0f} s: {problem}; run it again to go on"
            )
        shown.say(f"trying again: {problem}")
        await asyncio.sleep(max(retry_after, pauses.next()))


def _said(answer: "httpx2.Response") -> dict[str, Any]:
    """Return an answer's JSON object; an empty one if it is none, as a proxy's page."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _detail(answer: "httpx2.Response") -> str:
    try:
        problem = answer.json()
        return str(problem.get("detail") or problem.get("title") or "")
    except ValueError:
        return answer.text[:200]


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), RETRY_PAUSE_SECONDS_MAX) if retry_after.isdecimal() else 0.0


async def _compare(client: "httpx2.AsyncClient", expected: dict[date, Day]) -> list[Difference]:
    """Return the differences once there are none, or once the answers stand still."""
    import httpx2

    found: dict[date, Day] = {}
    problem = ""
    moved_at = time.monotonic()
    pauses = Pauses(0.2, 3.0)
    while True:
        try:
            for answer in (
                await client.get("/api/dashboard/sales", params={"days": DAYS_MAX, "live": "true"}),
            ):
                if answer.status_code in (401, 403):
                    raise RejectedError(f"{_detail(answer)}: see --api-key")
                answer.raise_for_status()
            problem, latest = "", _days(answer.text)
        except (httpx2.HTTPError, KeyError, ValueError) as error:
            problem, latest = str(error) or type(error).__name__, found
        differences = compare(expected, latest)
        # Orders are only added: where none is missing, waiting changes nothing.
        if not problem and all(d.found.orders >= d.expected.orders for d in differences):
            return differences
        if latest != found:
            found, moved_at = latest, time.monotonic()
        elif time.monotonic() - moved_at > PERSIST_WAIT_SECONDS:
            if problem:
                raise UnavailableError(f"the sales cannot be read: {problem}")
            return differences
        await asyncio.sleep(pauses.next())


def _days(text: str) -> dict[date, Day]:
    return {
        date.fromisoformat(day["date"]): Day(int(day["orders"]), Decimal(day["total_revenue"]))
        for day in json.loads(text, parse_float=Decimal)
    }


def compare(expected: dict[date, Day], found: dict[date, Day]) -> list[Difference]:
    """Return every day on which the two differ, in order."""
    nothing = Day(0, Decimal(0))
    return [
        Difference(day, expected.get(day, nothing), found.get(day, nothing))
        for day in sorted(expected.keys() | found.keys())
        if expected.get(day, nothing) != found.get(day, nothing)
    ]


def outcome(tally: Tally, differences: list[Difference], seconds: float) -> str:
    """Return what was loaded and what differs, as JSON; money as a string, exact."""
    return as_json(
        {
            "orders": sum(tally.orders.values()),
            "seconds": round(seconds, 3),
            "accepted": tally.accepted,
            "unchanged": tally.unchanged,
            "rejected": tally.rejected,
            "rejections": tally.reasons,
            "days": len(tally.orders),
            "revenue": Decimal(sum(tally.cents.values())) / 100,
            "differences": [
                {"day": one.day, "expected": one.expected._asdict(), "found": one.found._asdict()}
                for one in differences
            ],
        }
    )


def report(tally: Tally, differences: list[Difference], seconds: float) -> str:
    """Return what was loaded and what differs, for people."""
    orders = sum(tally.orders.values())
    revenue = Decimal(sum(tally.cents.values())) / 100
    rate = orders / seconds if seconds else 0.0
    verdict = (
        click.style(f"{len(differences):,} differ", fg="red")
        if differences
        else click.style("every day equal to the cent", fg="green")
    )
    answered = (
        f"{tally.accepted:,} accepted, {tally.unchanged:,} already there, "
        f"{tally.rejected:,} rejected"
    )
    compared = f"{len(tally.orders):,} days, {orders:,} orders, revenue {revenue:,.2f}"
    lines = [
        f"sent      {orders:,} orders in {seconds:,.1f} s ({rate:,.0f} a second)",
        f"answered  {answered}",
        *(f"          rejected: {reason}" for reason in tally.reasons),
        f"compared  {compared}: {verdict}",
    ]
    if differences:
        lines += _differing(differences)
    return "\n".join(lines)


def _differing(differences: list[Difference]) -> Iterator[str]:
    rows = [
        (
            str(difference.day),
            f"{difference.expected.orders:,}",
            f"{difference.found.orders:,}",
            f"{difference.expected.revenue:,.2f}",
            f"{difference.found.revenue:,.2f}",
        )
        for difference in differences[:SHOWN_MAX]
    ]
    yield table(("DAY", "ORDERS FILE", "ORDERS SYSTEM", "REVENUE FILE", "SYSTEM"), rows)
    if len(differences) > SHOWN_MAX:
        yield f"and {len(differences) - SHOWN_MAX:,} more days"
    if any(d.found.orders > d.expected.orders for d in differences):
        yield (
            "The system holds orders that this load did not send (an earlier or larger load, or "
            "other traffic), so the days cannot agree. Compare on a fresh data directory."
        )
