"""`polyglot demo`: the whole embedded system with real orders coming in, and a page to watch it.

```
  start everything ── ready ── open the page ── an order every 1/rate s ── Ctrl-C ── stop everything
                                                  |        ^
                                                  +--retry-+  with its own key: never stored twice
```

Invariant: an order is sent until it is accepted, also across a restart of the API, so that what
`Tally.accepted` counts is what the system holds.
"""

import asyncio
import csv
import http.client
import itertools
import json
import os
import sys
import time
import webbrowser
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import click

from polyglot_persistence.cli.demonstration import completejourney
from polyglot_persistence.errors import ConfigurationError
from polyglot_persistence.runtime.pauses import Pauses

CONNECTIONS = 8
"""Orders under way at once; enough for 1,000 a second."""

ANSWER_TIMEOUT_SECONDS = 10.0
RETRY_PAUSE_SECONDS_MIN = 0.1
RETRY_PAUSE_SECONDS_MAX = 2.0

BEHIND_SECONDS_MAX = 1.0
"""What could not be sent for longer than this is not made up for by a burst."""

REPORT_SECONDS = 5.0
TIMES_MAX = 1_000
"""Number of recent orders whose median time is reported."""

BATCH_LINES = 1_000

_RETRIED = {408, 425, 429}
"""What is the client's fault, and not the order's."""


_Result = TypeVar("_Result")


class DemoOrder(NamedTuple):
    """A real order line; the amount is the exact text."""

    product_name: str
    amount: str


@dataclass
class Tally:
    """What has been sent so far."""

    accepted: int = 0
    retries: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES_MAX))

    def line(self, rate: float) -> str:
        """Return how it goes, in one line."""
        usual = f", usually in {median(self.seconds) * 1000:.1f} ms" if self.seconds else ""
        again = f", {self.retries:,} sent again" if self.retries else ""
        return f"{self.accepted:,} orders accepted{usual}, {rate:,.0f} a second{again}"


class Demo:
    """One demonstration."""

    def __init__(self, *, rate: float, data_dir: Path, opens_page: bool) -> None:
        self._rate = rate
        self._data_dir = data_dir
        self._opens_page = opens_page
        self.tally = Tally()

    async def show(self, url: str) -> None:
        """Say what there is to see at `url`, and send orders there until cancelled.

        Raises:
            ConfigurationError: the API does not take the orders.
        """
        orders, what = await asyncio.to_thread(_orders)
        click.echo(_guide(url, self._data_dir, f"{self._rate:g} orders a second, {what}"))
        if self._opens_page and _has_display():
            await asyncio.to_thread(webbrowser.open, url)
        waiting: asyncio.Queue[DemoOrder] = asyncio.Queue(maxsize=CONNECTIONS)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pace(orders, waiting))
                group.create_task(self._report())
                for _ in range(CONNECTIONS):
                    group.create_task(self._send(url, waiting))
        except* ConfigurationError as errors:
            raise errors.exceptions[0] from None

    async def _pace(self, orders: Iterator[DemoOrder], waiting: asyncio.Queue[DemoOrder]) -> None:
        """Put one order after another into the queue, each at its time."""
        due = time.monotonic()
        while True:
            now = time.monotonic()
            due = max(due + 1 / self._rate, now - BEHIND_SECONDS_MAX)
            await asyncio.sleep(due - now)
            await waiting.put(next(orders))

    async def _send(self, url: str, waiting: asyncio.Queue[DemoOrder]) -> None:
        address = urlsplit(url)
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=ANSWER_TIMEOUT_SECONDS
        )
        with closing(connection):
            while True:
                order = await waiting.get()
                await self._place(connection, order)
                self.tally.accepted += 1

    async def _place(self, connection: http.client.HTTPConnection, order: DemoOrder) -> None:
        """Send the order until it is accepted."""
        # The key is the order's identity: to send it again is not to order again.
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
        body = json.dumps(order._asdict())
        pauses = Pauses(RETRY_PAUSE_SECONDS_MIN, RETRY_PAUSE_SECONDS_MAX)
        while True:
            started = time.monotonic()
            status, answer = await _finished(asyncio.to_thread(_post, connection, body, headers))
            if status == http.client.ACCEPTED:
                self.tally.seconds.append(time.monotonic() - started)
                return
            if 400 <= status < 500 and status not in _RETRIED:  # noqa: PLR2004
                raise ConfigurationError(f"the API refuses the orders: {status} {answer}")
            self.tally.retries += 1
            await asyncio.sleep(pauses.next())

    async def _report(self) -> None:
        """Report progress on stderr: in one line on a terminal, periodically elsewhere."""
        terminal = sys.stderr.isatty()
        while True:
            before = self.tally.accepted
            await asyncio.sleep(REPORT_SECONDS if not terminal else 1.0)
            rate = (self.tally.accepted - before) / (1.0 if terminal else REPORT_SECONDS)
            line = self.tally.line(rate)
            # The cursor waits at the line's beginning, so that a log line takes its place.
            click.echo(f"{line}\x1b[K\r" if terminal else line, nl=not terminal, err=True)


async def _finished(work: Coroutine[None, None, _Result]) -> _Result:
    """Return what the work gives; cancelled, wait for its end: a thread cannot be stopped."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _post(
    connection: http.client.HTTPConnection, body: str, headers: dict[str, str]
) -> tuple[int, str]:
    """Return the status (0 without an answer) and the text; runs in a thread."""
    try:
        connection.request("POST", "/api/orders", body, headers)
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        connection.close()  # the next request reopens it
        return 0, str(error)


def _orders() -> tuple[Iterator[DemoOrder], str]:
    """Return orders without end, and what they are."""
    try:
        lines = completejourney.count()
    except ConfigurationError:
        built_in = list(_built_in())
        return itertools.cycle(built_in), (
            f"from a sample of {len(built_in)} real ones (`make datasets` brings 1,469,307)"
        )
    orders = _installed()
    first = next(orders)  # reads the names of all products, which takes a moment: now, in a thread
    return itertools.chain([first], orders), f"from a year of {lines:,} real ones"


def _installed() -> Iterator[DemoOrder]:
    while True:
        for batch in completejourney.read(BATCH_LINES):
            for line in batch:
                order = json.loads(line.ndjson, parse_float=str)
                yield DemoOrder(order["product_name"], order["amount"])


def _built_in() -> Iterator[DemoOrder]:
    """Yield order lines of the data set, that come with the program."""
    text = resources.files(__package__).joinpath("demo_orders.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        yield DemoOrder(row["product_name"], row["amount"])


def _guide(url: str, data_dir: Path, orders: str) -> str:
    rows = (
        ("Watch", f"{url}/", "orders on their way: accepted, persisted, searchable"),
        ("Try", f"{url}/docs", "the whole API"),
        ("Read", f"curl -s '{url}/api/orders?limit=3'", "the latest orders"),
        ("Find", f"curl -s '{url}/api/search?q=chese'", "a typo is forgiven"),
        ("Break", f"kill -9 $(cat {data_dir}/worker.lock)", "nothing is lost; it starts again"),
    )
    width = max(len(what) for _, what, _ in rows)
    lines = [
        f"  {click.style(f'{verb:<6}', bold=True)} {what:<{width}}   {meaning}"
        for verb, what, meaning in rows
    ]
    lines = [
        "",
        *lines,
        "",
        f"{orders}. Ctrl-C stops everything; the data stays in {data_dir}.",
        "",
    ]
    return "\n".join(lines)


def _has_display() -> bool:
    """Whether a browser has a window to open; one in this terminal would be in the way."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
