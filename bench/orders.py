"""What is sent: real product names with their prices, as lines of files that wrk reads.

The names are those of the data set's order lines, each as often as it was bought, so that words
repeat as they do in a shop.

Invariant: every run sends the same lines, to each side.
"""

import itertools
import json
import random
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from polyglot_persistence.cli.demonstration import completejourney

LINES = 50_000
BODIES = 10_000
BULK_ORDERS = 1_000
BULKS = 20
QUERIES = 2_000
DAYS = 365
FIRST_DAY = date(2025, 1, 1)

_LINE = re.compile(rb'"product_name":(".*"),"amount":([0-9.]+),')


class Line(NamedTuple):
    """An order line: the name as JSON text, and the amount."""

    name: str
    amount: str


class Files(NamedTuple):
    """The files that wrk reads."""

    singles: Path
    bulks: Path
    queries: Path


def lines() -> list[Line]:
    """Return the first order lines of the data set."""
    found: list[Line] = []
    for batch in completejourney.read(10_000):
        for line in batch:
            match = _LINE.search(line.ndjson)
            assert match
            found.append(Line(match[1].decode(), match[2].decode()))
        if len(found) >= LINES:
            break
    # Baskets lie together in the file; in a real stream they mix.
    random.Random(1).shuffle(found)
    return found


def write(directory: Path, found: list[Line]) -> Files:
    """Write the files."""
    files = Files(directory / "singles", directory / "bulks", directory / "queries")
    bodies = [f'{{"product_name":{line.name},"amount":{line.amount}}}' for line in found]
    files.singles.write_text("".join(f"{body}\n" for body in bodies[:BODIES]))
    taken = itertools.cycle(bodies)
    files.bulks.write_text(
        "".join(
            f'{{"orders":[{",".join(itertools.islice(taken, BULK_ORDERS))}]}}\n'
            for _ in range(BULKS)
        )
    )
    files.queries.write_text("".join(f"{path}\n" for path in searches(found)))
    return files


def searches(found: list[Line]) -> Iterator[str]:
    """Yield paths of searches: one word, or two, of a name that was bought."""
    chance = random.Random(2)
    for _ in range(QUERIES):
        words = words_of(json.loads(chance.choice(found).name))
        if words:
            yield search(" ".join(chance.sample(words, min(len(words), chance.choice((1, 2))))))


def words_of(name: str) -> list[str]:
    """Return what people would search for in a name; sizes are not."""
    return re.findall(r"[A-Za-z]{3,}", name)


def search(text: str) -> str:
    """Return the path of a search; the peer always gives ten hits."""
    return f"/api/search?limit=10&q={quote(text.lower())}"


def imported(found: list[Line], first: int, number: int) -> Iterator[bytes]:
    """Yield lines of an import, created at any time of a year, the same for the same numbers."""
    days = [(FIRST_DAY + timedelta(days=n)).isoformat() for n in range(DAYS)]
    for n in range(first, first + number):
        name, amount = found[n % len(found)]
        # 7919 is prime, so that every day comes and neighbours are far apart.
        day, hour, minute = days[n * 7919 % DAYS], n % 24, n % 60
        yield (
            f'{{"product_name":{name},"amount":{amount},'
            f'"created_at":"{day}T{hour:02d}:{minute:02d}:00Z"}}\n'
        ).encode()


def reads(ids: list[str], *, zipf: bool, number: int) -> Iterator[str]:
    """Yield paths of reads: every id as likely, or by Zipf's law (s = 0.99, as YCSB has it)."""
    chance = random.Random(3)
    weights = [1 / rank**0.99 for rank in range(1, len(ids) + 1)] if zipf else None
    for order_id in chance.choices(ids, weights, k=number):
        yield f"/api/orders/{order_id}"
