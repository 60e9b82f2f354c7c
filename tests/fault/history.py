"""What clients did and were told, in the order of a clock that never jumps.

One event a line, JSON arrays that begin with their kind; the file lies outside of every store and
every process under test, and is flushed to disk while the clients go on:

    ["write", time, attempt, operation, kind, [[product name, cents, id or null], ...]]
    ["acked", time, attempt, [id, ...]]     2xx: all of them are durable
    ["refused", time, attempt, status]      nothing was stored and nothing will be
    ["unknown", time, attempt, status]      no answer (0), or 504
    ["read", time, attempt, id]
    ["answer", time, attempt, status, product name or null, cents or null]
    ["hits", time, [[id, product name, cents], ...]]
    ["backlog", time, dirty orders]
    ["wrong", time, text]                   an answer that nobody may ever get

Each order has an amount of its own, so that a row tells which order it is, whatever its id. The
attempts of one operation are the retries of a client that cannot know whether the first one counts.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

Event = list[Any]
FLUSH_SECONDS = 0.5


class Order(NamedTuple):
    """One order as a client sends it."""

    product_name: str
    cents: int
    id: str | None = None


class History:
    """Writes events down; the little that clients need again stays in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._flushed_at = 0.0
        self._attempts = 0
        self.ids: list[str] = []
        """Of the acknowledged orders, in the order of their answers."""
        self.wrong: list[str] = []
        self.whole_at = time.monotonic()
        """When a write was last acknowledged with both copies, in the cache and the queue."""
        self.whole_seconds_max = 0.0
        """Longest time between two of them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.flush()
        self._file.close()

    def write(self, operation: str, kind: str, orders: Sequence[Order]) -> int:
        """Note that these orders are about to be sent; return the number of the attempt."""
        self._attempts += 1
        self._note("write", self._attempts, operation, kind, orders)
        return self._attempts

    def acked(self, attempt: int, ids: Sequence[str]) -> None:
        """Note that all of them are durable, as the client heard."""
        self._note("acked", attempt, ids)
        self.ids += ids

    def whole(self) -> None:
        """Note that a write was acknowledged with both copies."""
        now = time.monotonic()
        self.whole_seconds_max = max(self.whole_seconds_max, now - self.whole_at)
        self.whole_at = now

    def refused(self, attempt: int, status: int) -> None:
        """Note that nothing was stored, as the client heard; or that nothing was sent (0)."""
        self._note("refused", attempt, status)

    def unknown(self, attempt: int, status: int) -> None:
        """Note that nobody knows."""
        self._note("unknown", attempt, status)

    def read(self, order_id: str) -> int:
        """Note a question; return the number of the attempt."""
        self._attempts += 1
        self._note("read", self._attempts, order_id)
        return self._attempts

    def answer(self, attempt: int, status: int, order: Order | None) -> None:
        """Note what the question was answered; 0 is no answer."""
        name, cents = (None, None) if order is None else order[:2]
        self._note("answer", attempt, status, name, cents)

    def hits(self, found: Sequence[tuple[str, str, int]]) -> None:
        """Note what a search found."""
        self._note("hits", found)

    def backlog(self, dirty: int) -> None:
        """Note how many orders are dirty now."""
        self._note("backlog", dirty)

    def fail(self, text: str) -> None:
        """Note an answer that nobody may ever get."""
        self.wrong.append(text)
        self._note("wrong", text)

    def flush(self) -> None:
        """Return once everything noted so far is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _note(self, kind: str, *fields: Any) -> None:
        now = time.monotonic()
        self._file.write(json.dumps([kind, now, *fields]) + "\n")
        if now - self._flushed_at > FLUSH_SECONDS:
            self._flushed_at = now
            self.flush()


def events(path: Path) -> Iterator[Event]:
    """Read a history."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
