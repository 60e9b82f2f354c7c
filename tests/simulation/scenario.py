"""Make a plan out of a seed: what clients do, and what goes wrong at which step.

Some faults of each run aim at the cells of the table of faults and steps, one seed after another;
others come at random, or in storms: faults that are worse together.
"""

import random
from collections.abc import Iterator, Sequence

from tests.simulation.plan import (
    CALL_FAULTS,
    FAULT_SECONDS_MAX,
    FAULTS_END,
    KINDS,
    NEEDS_SERVERS,
    PATIENCE_SECONDS,
    Cell,
    Fault,
    Operation,
    Plan,
    every_step,
)

OPERATIONS = 40
CLIENTS_END = 7.5


def make_plan(seed: int, aims: Sequence[Cell]) -> Plan:
    """Return the plan of a seed; its number chooses which of these cells its faults aim at."""
    chance = random.Random(f"plan {seed}")
    aimed = list(_aimed(seed, chance, aims))
    if seed % LONG_EVERY == 0:
        faults = [*aimed[:1], *_long_outage(chance)]
    else:
        faults = [*aimed, *_wild(chance)]
    apis, workers = chance.choice(((2, 2), (2, 2), (3, 2), (2, 3)))
    operations = _operations(chance, apis, [f for f in faults if f.step in _LETTERS_STEPS])
    if seed % LONG_EVERY and chance.random() < 0.5:
        storm = _import_in_a_storm(chance, _Writer(chance, apis), len(operations))
        operations.append(storm[0])
        faults += storm[1]
    if chance.random() < 0.15:
        discard = _discard_in_a_storm(chance, apis, len(operations))
        operations += discard[0]
        faults += discard[1]
    needs_servers = any(fault.kind in NEEDS_SERVERS for fault in faults)
    servers = needs_servers or chance.random() < 0.6
    durable = chance.random() < 0.7 or not servers
    operations += _orders_after_failovers(chance, faults, len(operations))
    return Plan(
        seed=seed,
        deployment="servers" if servers else "embedded",
        apis=apis,
        workers=workers,
        durable=durable,
        replicas=servers and chance.random() < 0.6,
        audits=not _heals_alone(faults),
        dirty_orders_max=chance.choice((25, 60, 200)),
        clock_offsets=tuple(
            chance.choice((0.0, 0.0, chance.uniform(-2, 2))) for _ in range(apis + workers)
        ),
        operations=operations,
        faults=sorted(faults, key=lambda fault: fault.at),
    )


def _heals_alone(faults: Sequence[Fault]) -> bool:
    """Whether a failover of the record has to heal unaided: nothing happens that audits repair."""
    kinds = {fault.kind for fault in faults}
    return "record failover" in kinds and kinds.isdisjoint(_REPAIRED_BY_AUDITS)


_REPAIRED_BY_AUDITS = {"search emptied", "cache restarted", "cache failover"}
"""Search is built anew for what a lost part held; a cache that lost its latest writes may show a
dead letter that was discarded."""


AIMED = 4
"""Faults of each run that go through all cells of the table, one seed after another."""

_PROVOKED_BY: dict[str, Sequence[tuple[str, str | None]]] = {
    "epoch raise": (("cache away", None),),
    "warm token": (("cache away", None),),
    "warm copy": (("cache away", None),),
    "backfill": (("cache emptied", None),),
    "WAIT": (("queue refuses", None),),
    "end warming": (("killed", "ack"),),
    "suspect row": (("killed", "ack"), ("killed", "ack")),
    "hand back": (("newer message", None),),
    "sweep look": (("reply lost", "settle"),),
    "consume": (("queue away", None),),
    "rebuild": (("search emptied", None),),
}
"""Steps that a quiet run may not make, and the faults that bring them about."""

_EARLY = ("warm token", "warm copy")
"""Steps that come long after what brings them about."""


def _aimed(seed: int, chance: random.Random, aims: Sequence[Cell]) -> Iterator[Fault]:
    # A stride that shares no factor with the number of cells visits each of them.
    stride = 7919
    for n in range(AIMED):
        kind, step = aims[(seed * AIMED + n) * stride % len(aims)]
        fault = _fault(chance, kind, step)
        if step in _EARLY:
            fault = fault._replace(at=round(chance.uniform(0.2, 1.5), 3))
        yield fault
        for provoking in _PROVOKED_BY.get(step, ()):
            brought = _fault(chance, *provoking)
            at = round(fault.at + chance.uniform(0.05, 0.3), 3)
            yield brought._replace(at=at, seconds=min(brought.seconds, 0.6))


def _wild(chance: random.Random) -> Iterator[Fault]:
    """Yield faults that like each other: several of one store, or one that goes on and on."""
    kinds = [chance.choice(KINDS) for _ in range(chance.choice((0, 1, 2, 3)))]
    for kind in kinds:
        step = None
        if kind in CALL_FAULTS or chance.random() < 0.4:
            choice = [one for one in every_step() if one.store or kind not in CALL_FAULTS]
            step = chance.choice(choice).name
            if kind in CALL_FAULTS:
                step = chance.choice(_HOT_STEPS)
        yield _fault(chance, kind, step)
    if chance.random() < 0.5:
        yield from _storm(chance)


_HOT_STEPS = (
    "accept script",
    "publish",
    "persist transaction",
    "settle",
    "ack",
    "MGET",
    "SELECT",
    "epoch raise",
    "warm copy",
)

_STORMS: Sequence[Sequence[tuple[str, str | None]]] = (
    (("record read-only", None), ("cache emptied", None)),
    (("record frozen", None), ("record frozen", None)),
    (("record locked", None), ("cache failover", None)),
    (("record locked", None), ("cache away", None)),
    (("cache failover", "accept script"), ("record locked", None)),
    (("queue refuses", None), ("cache failover", None)),
    (("reply lost", "accept script"), ("cache away", None), ("queue away", None)),
    (("reply lost", "publish"), ("queue refuses", None), ("cache full", None)),
    (("cache away", None), ("queue away", None)),
    (("queue away", None), ("queue miscounts", None), ("cache emptied", None)),
    (("record away", None), ("cache away", None)),
    (("cache settings", None), ("cache restarted", None)),
    (("paused", "persist transaction"), ("cache emptied", None)),
    (("suspended", "answer"), ("cache emptied", None)),
    (("cache away", "accept script"), ("record failover", None)),
    (("record frozen", None), ("killed", "deliver")),
    (("stopped", "import chunk"), ("queue away", None)),
    (("newer message", None), ("cache emptied", None)),
    (("newer entry", None), ("queue away", None)),
)
"""Faults that follow one another within a second or two."""


LONG_SECONDS = 10.5
"""Longer than a cold cache waits for a quiet queue."""

LONG_EVERY = 6
"""One of so many runs is about a long outage, with little beside it."""


def _long_outage(chance: random.Random) -> Iterator[Fault]:
    """Yield a store that takes or gives nothing for long, and a cache that is cold meanwhile."""
    at = round(chance.uniform(0.3, 1.0), 3)
    kinds = ("record locked", "record locked", "record read-only", "queue miscounts", "queue away")
    kind = chance.choice(kinds)
    outage = _fault(chance, kind, None)._replace(seconds=LONG_SECONDS)
    if kind.startswith("queue"):  # which holds something that is not persisted
        yield _fault(chance, "record locked", None)._replace(at=at, seconds=2.0)
        at += 0.5
    yield outage._replace(at=at)
    lost = chance.choice(("cache emptied", "cache emptied", "cache failover", "cache away"))
    yield _fault(chance, lost, None)._replace(at=at + chance.uniform(0.3, 0.9), seconds=0.4)


def _storm(chance: random.Random) -> Iterator[Fault]:
    at = chance.uniform(0.5, FAULTS_END - 5)
    for kind, step in chance.choice(_STORMS):
        fault = _fault(chance, kind, step)
        yield fault._replace(at=at)
        at += chance.uniform(0.02, 1.5)


_STORMS_OF_IMPORTS: Sequence[Sequence[tuple[str, str | None]]] = (
    (("cache frozen", None), ("queue away", None)),
    (("cache away", None), ("queue away", None)),
    (("reply lost", "accept script"), ("cache away", None), ("queue away", None)),
    (("stopped", "import chunk"),),
    (("killed", "import chunk"),),
    (("cache full", None), ("queue refuses", None)),
    (("record frozen", None), ("stopped", "import chunk")),
)
"""What goes wrong while an import is under way."""


def _import_in_a_storm(
    chance: random.Random, writer: "_Writer", number: int
) -> tuple[Operation, list[Fault]]:
    at = round(chance.uniform(0.5, CLIENTS_END - 3), 3)
    operation = writer.long_import(number, at)
    faults = []
    for kind, step in chance.choice(_STORMS_OF_IMPORTS):
        at += chance.uniform(0.02, 0.4)
        fault = _fault(chance, kind, step)
        faults.append(fault._replace(at=round(at, 3), seconds=max(fault.seconds, 1.8)))
    return operation, faults


_STORMS_OF_DISCARDS: Sequence[Sequence[tuple[str, str | None]]] = (
    (("cache failover", None),),
    (("cache settings", None), ("cache restarted", None)),
    (("cache failover", "letters"),),
)
"""What a cache can lose a discard by."""


def _discard_in_a_storm(
    chance: random.Random, apis: int, number: int
) -> tuple[list[Operation], list[Fault]]:
    at = round(chance.uniform(0.5, CLIENTS_END - 3), 3)
    names = (f"poison o{number}.0", *(f"o{number}.{n}" for n in range(1, chance.randint(2, 7))))
    operations = [Operation(number, at, "bulk", chance.randrange(apis), names)]
    operations += [
        Operation(number + n, round(at + 0.3 + 0.2 * n, 3), "letters", n % apis, discard=True)
        for n in (1, 2)
    ]
    storm = chance.choice(_STORMS_OF_DISCARDS)
    last = at + 0.5 + chance.uniform(0.01, 0.2)
    faults = [_fault(chance, kind, step)._replace(at=round(last, 3)) for kind, step in storm]
    if len(storm) > 1:  # what was written before the setting is on the disk
        lazily = faults[0]
        faults[0] = lazily._replace(at=round(at + 0.2, 3), amount=lazily.amount | 1)
    return operations, faults


PINGED_SECONDS = 2.5
"""A setting of the cache that is changed and set back within less may be seen by nobody."""


def _fault(chance: random.Random, kind: str, step: str | None) -> Fault:
    fault = Fault(
        kind,
        round(chance.uniform(0.2, FAULTS_END - PATIENCE_SECONDS), 3),
        step,
        chance.random() < 0.5,
        round(chance.choice((0.05, 0.5, 1.5, FAULT_SECONDS_MAX)) * chance.uniform(0.5, 1), 3),
        chance.randrange(1_000),
    )
    if kind == "cache settings":
        return fault._replace(seconds=max(fault.seconds, PINGED_SECONDS))
    return fault


# --- what clients do -------------------------------------------------------------------------


_LETTERS_STEPS = ("bury", "letters")
"""Steps that only an order makes that can never be persisted."""


def _operations(
    chance: random.Random, apis: int, needs_letters: Sequence[Fault]
) -> list[Operation]:
    writer = _Writer(chance, apis)
    moments = sorted(round(chance.uniform(0.05, CLIENTS_END), 3) for _ in range(OPERATIONS))
    operations = [writer.operation(number, at) for number, at in enumerate(moments)]
    for fault in needs_letters:
        number = len(operations)
        poison = Operation(number, fault.at - 0.1, "order", number, (f"poison o{number}.0",))
        looks = [
            Operation(number + n, fault.at + 0.4 * n, "letters", n, discard=fault.amount % 2 == 0)
            for n in (1, 2, 3)
        ]
        operations += [poison, *looks]
    return operations


def _orders_after_failovers(
    chance: random.Random, faults: Sequence[Fault], number: int
) -> Iterator[Operation]:
    """Yield orders for the process that may be alone in having met the new primary."""
    for fault in faults:
        if fault.kind == "cache failover":
            for at in sorted(fault.at + chance.uniform(0.01, 0.6) for _ in range(3)):
                names = (f"o{number}.0",)
                yield Operation(number, round(at, 3), "order", fault.amount, names)
                number += 1


class _Writer:
    """Writes down operations, with those before in view."""

    def __init__(self, chance: random.Random, apis: int) -> None:
        self._chance = chance
        self._apis = apis
        self._keyed: list[Operation] = []
        self._written: list[int] = []

    def operation(self, number: int, at: float) -> Operation:
        chance = self._chance
        kind = chance.choices(
            ("order", "keyed", "bulk", "import", "again", "wrong", "read", "other"),
            (14, 8, 9, 6, 10, 7, 22, 4),
        )[0]
        base = Operation(number, at, "order", chance.randrange(self._apis))
        if kind in ("again", "wrong") and self._keyed:
            made = self._again(base) if kind == "again" else self._wrong(base)
        elif kind == "read" and self._written:
            made = self._read(base)
        elif kind == "other":
            made = self._other(base)
        elif kind == "bulk":
            made = self._bulk(base)
        elif kind == "import":
            made = self._import(base)
        else:
            made = self._order(base, keyed=kind == "keyed")
        if made.names:
            self._written.append(number)
            if made.key is not None:
                self._keyed.append(made)
        return made

    def _names(self, number: int, orders: int) -> tuple[str, ...]:
        poison = self._chance.random() < 0.02
        return tuple(
            f"{'poison ' if poison and n == 0 else ''}o{number}.{n}" for n in range(orders)
        )

    def _order(self, base: Operation, *, keyed: bool) -> Operation:
        chance = self._chance
        return base._replace(
            names=self._names(base.number, 1),
            key=f"k{base.number}" if keyed else None,
            tries=chance.choice((1, 2, 3)),
            hot=chance.random() < 0.6,
            wait=chance.random() < 0.1,
        )

    def _bulk(self, base: Operation) -> Operation:
        chance = self._chance
        return base._replace(
            kind="bulk",
            names=self._names(base.number, chance.choice((1, 2, 2, 3, 5, 9))),
            key=f"k{base.number}" if chance.random() < 0.6 else None,
            tries=chance.choice((1, 2, 3)),
        )

    def _import(self, base: Operation) -> Operation:
        chance = self._chance
        lines = chance.choice((1, 2, 4, 7, 11))
        key = f"k{base.number}" if chance.random() < 0.6 else None
        with_ids = chance.random() < 0.4
        return base._replace(
            kind="import",
            names=self._names(base.number, lines),
            ids=tuple(
                _id(chance) if with_ids and chance.random() < 0.8 else "" for _ in range(lines)
            ),
            key=key,
            tries=chance.choice((1, 3, 5)),
            chunk_lines=chance.choice((1, 2, 3)),
            pause_seconds=chance.choice((0.0, 0.05, 0.4)),
            cut_after=chance.choice((0, 0, 1, 2)),
            by_line=chance.random() < 0.5,
        )

    def long_import(self, number: int, at: float) -> Operation:
        """Return an import that takes a while, and is resumed."""
        chance = self._chance
        base = Operation(number, at, "import", chance.randrange(self._apis))
        names = tuple(f"o{number}.{n}" for n in range(chance.choice((6, 9, 12))))
        return base._replace(
            names=names,
            ids=("",) * len(names),
            key=f"k{number}" if chance.random() < 0.8 else None,
            tries=6,
            chunk_lines=chance.choice((1, 2, 3)),
            pause_seconds=chance.choice((0.05, 0.2)),
            by_line=chance.random() < 0.7,
        )

    def _again(self, base: Operation) -> Operation:
        """Send what was sent before, as a client does that has heard nothing."""
        before, at = self._earlier(base)
        return before._replace(number=base.number, at=at, api=base.api, cut_after=0)

    def _earlier(self, base: Operation) -> tuple[Operation, float]:
        """Return what used a key lately, and when it is used again: often almost at once."""
        before = self._chance.choice(self._keyed[-8:])
        if self._chance.random() < 0.6:
            return before, round(before.at + self._chance.choice((0.002, 0.02, 0.4)), 3)
        return before, base.at

    def _wrong(self, base: Operation) -> Operation:
        """Use a key for something else: other content, a longer or shorter bulk, another route."""
        chance = self._chance
        before, at = self._earlier(base)
        names = list(before.names)
        how = chance.choice(("other", "longer", "longer", "shorter"))
        if how == "longer":
            names += self._names(base.number, chance.choice((1, 2)))
        elif how == "shorter" and len(names) > 1:
            names = names[: chance.randrange(1, len(names))]
        else:
            names = list(self._names(base.number, len(names)))
        kind = "bulk" if before.kind in ("order", "bulk") and len(names) > 1 else before.kind
        ids = (*before.ids, *[""] * len(names))[: len(names)] if kind == "import" else ()
        return before._replace(
            number=base.number,
            at=at,
            api=base.api,
            kind=kind,
            names=tuple(names),
            ids=ids,
            tries=chance.choice((1, 2)),
            cut_after=0,
        )

    def _read(self, base: Operation) -> Operation:
        chance = self._chance
        return base._replace(
            kind=chance.choice(("read", "read", "read", "status")),
            target=chance.choice(self._written[-12:]) if chance.random() < 0.8 else -1,
            hot=chance.random() < 0.6,
        )

    def _other(self, base: Operation) -> Operation:
        chance = self._chance
        return base._replace(
            kind=chance.choice(("page", "search", "letters", "letters")),
            discard=chance.random() < 0.5,
        )


def _id(chance: random.Random) -> str:
    digits = f"{chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
