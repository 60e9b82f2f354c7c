"""What must be true whatever happened: pure functions over a history and what the stores hold.

Nothing here is shared with the product but what it promises its clients. A violation is one line of
text that begins with its kind: `lost`, `doubled`, `false 404`, or another.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from tests.fault.history import Event, Order

QUARTER = timedelta(minutes=15)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """An order of the record."""

    id: str
    product_name: str
    cents: int
    created_at: datetime


class Letter(NamedTuple):
    """A dead letter."""

    order_id: str | None
    stage: str
    reason: str


class Sum(NamedTuple):
    """Of a cell of the sales."""

    cents: int
    orders: int


@dataclass
class Held:
    """What the stores hold once all is quiet."""

    record: Sequence[Row] = ()
    letters: Sequence[Letter] = ()
    quarter_hours: Mapping[datetime, Sum] = field(default_factory=dict)
    product_days: Mapping[tuple[date, str], Sum] = field(default_factory=dict)
    days: Mapping[date, Sum] = field(default_factory=dict)
    searchable: Sequence[tuple[str, str, int]] = ()
    cached: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    """State, product name and cents of the entries of orders, by id."""
    dirty: int = 0
    queued: int = 0
    outbox: int = 0


@dataclass
class Write:
    """One operation of a client with all its attempts."""

    kind: str
    orders: Sequence[Order]
    unanswered: set[int] = field(default_factory=set)
    acks: list[tuple[float, Sequence[str]]] = field(default_factory=list)
    unknown: bool = False

    @property
    def acked(self) -> bool:
        """Whether its client was told that all of it is durable."""
        return bool(self.acks)

    @property
    def uncertain(self) -> bool:
        """Whether its client cannot know."""
        return not self.acked and (self.unknown or bool(self.unanswered))


@dataclass
class Read:
    """A question and its answer."""

    asked_at: float
    order_id: str
    answered_at: float = 0.0
    status: int = 0
    product_name: str | None = None
    cents: int | None = None


@dataclass
class Told:
    """A history, by what was done."""

    writes: dict[str, Write] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    hits: list[tuple[str, str, int]] = field(default_factory=list)
    backlogs: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def acked(self) -> dict[str, Order]:
        """What was promised, by id, as it was first promised."""
        acked: dict[str, Order] = {}
        for write in self.writes.values():
            for _, ids in write.acks[:1]:
                acked.update(zip(ids, write.orders, strict=True))
        return acked


class Verdict(NamedTuple):
    """What came out of a check."""

    acknowledged: int
    reads: int
    violations: Sequence[str]

    def count(self, kind: str) -> int:
        """Return how many violations are of a kind."""
        return sum(one.startswith(f"{kind}:") for one in self.violations)

    def after(self, left: str, tracebacks: Sequence[str]) -> "Verdict":
        """Return what is to be said if this is left to do, and the processes logged these faults.

        What is under way still is not where it belongs; that is one violation, and not one each.
        """
        found = [f"traceback: {trace}" for trace in tracebacks]
        if left:
            found.append(f"unsettled: {left}, and nothing moves")
            lasting = ("wrong", "doubled", "false 404", "misread", "refused and stored")
            found += [one for one in self.violations if one.partition(":")[0] in lasting]
        else:
            found += self.violations
        return self._replace(violations=found)


def check(events: Iterable[Event], held: Held, *, backlog_max: int) -> Verdict:
    """Compare what clients were told with what the stores hold."""
    told = read_history(events)
    acked = told.acked
    violations = [
        *(f"wrong: {text}" for text in told.wrong),
        *acknowledged_is_kept(acked, held),
        *nothing_is_doubled(told, held),
        *nothing_came_from_nowhere(told, held),
        *answers_are_true(told, held),
        *sales_are_the_sum(held),
        *search_is_the_record(told, held),
        *all_is_settled(held),
        *(f"backlog: {n} orders" for n in told.backlogs if n > backlog_max),
    ]
    return Verdict(len(acked), len(told.reads), violations)


def read_history(events: Iterable[Event]) -> Told:
    """Order a history by operations."""
    told = Told()
    attempts: dict[int, Write] = {}
    reads: dict[int, Read] = {}
    for kind, at, *rest in events:
        if kind == "write":
            attempt, operation, what, orders = rest
            sent = [Order(*one) for one in orders]
            write = told.writes.setdefault(operation, Write(what, sent))
            write.unanswered.add(attempt)
            attempts[attempt] = write
        elif kind in ("acked", "refused", "unknown"):
            write = attempts[rest[0]]
            write.unanswered.discard(rest[0])
            if kind == "acked":
                write.acks.append((at, rest[1]))
            write.unknown = write.unknown or kind == "unknown"
        elif kind == "read":
            reads[rest[0]] = Read(at, rest[1])
        elif kind == "answer":
            read = reads.pop(rest[0])
            read.answered_at, (read.status, read.product_name, read.cents) = at, rest[1:]
            told.reads.append(read)
        elif kind == "hits":
            told.hits += [(i, name, cents) for i, name, cents in rest[0]]
        elif kind == "backlog":
            told.backlogs.append(rest[0])
        else:
            told.wrong.append(rest[0])
    return told


def acknowledged_is_kept(acked: Mapping[str, Order], held: Held) -> Iterator[str]:
    """Whatever was acknowledged is in the record, as it was sent."""
    rows = {row.id: row for row in held.record}
    dead = {letter.order_id: letter for letter in held.letters if letter.stage != "index"}
    for order_id, order in acked.items():
        row = rows.get(order_id)
        if row is None:
            letter = dead.get(order_id)
            yield (
                f"lost: {order_id} {order}" if letter is None else f"condemned: {order_id} {letter}"
            )
        elif (row.product_name, row.cents) != order[:2]:
            yield f"changed: {order} is {row}"


def nothing_is_doubled(told: Told, held: Held) -> Iterator[str]:
    """One row an id, one row an order, one id for all answers to one key."""
    for order_id, times in Counter(row.id for row in held.record).items():
        if times > 1:
            yield f"doubled: id {order_id} is in {times} rows"
    for cents, times in Counter(row.cents for row in held.record).items():
        if times > 1:
            yield f"doubled: the order of {cents} cents is in {times} rows"
    for operation, write in told.writes.items():
        if len({tuple(ids) for _, ids in write.acks}) > 1:
            yield f"doubled: {operation} was given other ids by a retry"
    ids = {row.id for row in held.record}
    for letter in held.letters:
        if letter.stage != "index" and letter.order_id in ids:
            yield f"doubled: {letter.order_id} is in the record and a dead letter"


def nothing_came_from_nowhere(told: Told, held: Held) -> Iterator[str]:
    """What is stored was acknowledged, or nobody knows; a bulk is there whole or not at all."""
    rows: dict[int, Row] = {row.cents: row for row in held.record}
    sent: set[int] = set()
    for operation, write in told.writes.items():
        stored = [order for order in write.orders if order.cents in rows]
        sent.update(order.cents for order in write.orders)
        if not write.acked and not write.uncertain and stored:
            yield f"refused and stored: {operation} {stored[:2]}"
        if write.kind == "bulk" and len(stored) not in (0, len(write.orders)):
            yield f"divided: {operation}, {len(stored)} of {len(write.orders)}"
        for order in stored:
            row = rows[order.cents]
            if row.product_name != order.product_name or order.id not in (None, row.id):
                yield f"changed: {order} is {row}"
    for row in held.record:
        if row.cents not in sent:
            yield f"nobody sent: {row}"


def answers_are_true(told: Told, held: Held) -> Iterator[str]:
    """From the acknowledgement on, or once it was read, an order is there; as it was sent."""
    sent = {row.id: (row.product_name, row.cents) for row in held.record}
    there_from: dict[str, float] = {}
    for write in told.writes.values():
        sent.update({order.id: order[:2] for order in write.orders if order.id})
        for at, ids in write.acks:
            for order_id, order in zip(ids, write.orders, strict=True):
                sent[order_id] = order[:2]
                there_from[order_id] = min(at, there_from.get(order_id, at))
    for read in told.reads:
        if read.status == 200:
            at = there_from.get(read.order_id, read.answered_at)
            there_from[read.order_id] = min(at, read.answered_at)
    for read in told.reads:
        if read.status == 200 and sent.get(read.order_id) != (read.product_name, read.cents):
            yield f"misread: {read}"
        there = there_from.get(read.order_id, float("inf"))
        if read.status == 404 and read.asked_at > there:
            yield f"false 404: {read}, there since {there}"
        if read.status not in (0, 200, 404, 503):
            yield f"wrong: {read}"


def sales_are_the_sum(held: Held) -> Iterator[str]:
    """Both rollups and the view say what the rows add up to, to the cent."""
    quarters: dict[object, list[int]] = defaultdict(list)
    products: dict[object, list[int]] = defaultdict(list)
    days: dict[object, list[int]] = defaultdict(list)
    for row in held.record:
        moment = row.created_at.astimezone(UTC)
        quarters[moment - (moment - EPOCH) % QUARTER].append(row.cents)
        products[moment.date(), row.product_name].append(row.cents)
        days[moment.date()].append(row.cents)
    tables: Sequence[tuple[str, Mapping[Any, list[int]], Mapping[Any, Sum]]] = (
        ("quarter hours", quarters, held.quarter_hours),
        ("product days", products, held.product_days),
        ("daily view", days, held.days),
    )
    for name, cells, stored in tables:
        exact = {key: Sum(sum(cents), len(cents)) for key, cents in cells.items()}
        for key in exact.keys() | stored.keys():
            if exact.get(key) != stored.get(key):
                yield f"sales: {name} {key}: {stored.get(key)}, the rows say {exact.get(key)}"


def search_is_the_record(told: Told, held: Held) -> Iterator[str]:
    """The same orders with the same content, each once; and no search ever found another."""
    rows = {row.id: (row.product_name, row.cents) for row in held.record}
    unfit = {letter.order_id for letter in held.letters if letter.stage == "index"}
    found = {order_id: (name, cents) for order_id, name, cents in held.searchable}
    if len(found) != len(held.searchable):
        yield f"search: {len(held.searchable) - len(found)} documents are there twice"
    for order_id in rows.keys() - found.keys() - unfit:
        yield f"search: {order_id} is in the record and cannot be found"
    for order_id, content in found.items():
        if rows.get(order_id) != content:
            yield f"search: {order_id} is found as {content}, the record has {rows.get(order_id)}"
    for order_id, name, cents in told.hits:
        if rows.get(order_id) != (name, cents):
            yield f"search: found {order_id} {name} {cents}, the record has {rows.get(order_id)}"


def all_is_settled(held: Held) -> Iterator[str]:
    """Nothing is left to do, and what the cache has is what the record has."""
    for what, left in (("dirty", held.dirty), ("queued", held.queued), ("outbox", held.outbox)):
        if left:
            yield f"unsettled: {what} {left}"
    rows = {row.id: row for row in held.record}
    dead = {letter.order_id for letter in held.letters}
    for order_id, (state, name, cents) in held.cached.items():
        row = rows.get(order_id)
        if row is None and order_id in dead and state == "X":
            continue
        if row is None or (state, name, cents) != ("C", row.product_name, row.cents):
            yield f"cache: {order_id} is {state} {name} {cents}, the record has {row}"
