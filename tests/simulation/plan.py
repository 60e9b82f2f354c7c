"""A run, written down before it begins: who is there, what clients do, and what goes wrong.

A plan is made from its seed alone, and is data: the shrinker leaves parts of it out and runs the
rest. A fault that has a step strikes at the first such step after its moment.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from tests.simulation import steps
from tests.simulation.steps import Step

CALL_FAULTS = frozenset({"request lost", "reply lost", "reply late", "effect late"})
"""Of one call, on its way."""

PROCESS_FAULTS = frozenset({"paused", "suspended", "killed", "stopped", "clock"})
"""Of the process that makes the step."""

STORE_FAULTS = frozenset(
    {
        "cache away",
        "cache frozen",
        "cache full",
        "cache emptied",
        "cache restarted",
        "cache failover",
        "cache settings",
        "queue away",
        "queue frozen",
        "queue miscounts",
        "queue refuses",
        "queue emptied",
        "record away",
        "record frozen",
        "record locked",
        "record read-only",
        "record failover",
        "record restarted",
        "search away",
        "search frozen",
        "search emptied",
        "newer entry",
        "newer message",
    }
)
"""Of a store, whoever makes the step."""

KINDS = tuple(sorted(CALL_FAULTS | PROCESS_FAULTS | STORE_FAULTS))

NEEDS_SERVERS = frozenset(
    {"cache emptied", "cache restarted", "cache failover", "queue miscounts", "queue emptied"}
)
"""What the embedded deployment, whose one Valkey is cache and queue, does not promise to survive,
or cannot have."""

FAULTS_END = 9.5
"""Whatever goes wrong has begun by then."""
PATIENCE_SECONDS = 3.0
"""So long a fault waits for its step; then it strikes at none, or not at all."""
WARM_PATIENCE_SECONDS = FAULTS_END
"""A cache that is cold takes longer to make its next step."""
FAULT_SECONDS_MAX = 3.5

Deployment = Literal["embedded", "servers"]


class Fault(NamedTuple):
    """One thing that goes wrong."""

    kind: str
    at: float
    step: str | None
    """None: at the moment itself."""
    after: bool
    """Once the step has had its effect; else before."""
    seconds: float
    amount: int
    """Chooses among variants: how much, which one."""

    def __str__(self) -> str:
        where = "" if self.step is None else f" {'after' if self.after else 'before'} {self.step}"
        return f"{self.at:6.2f} s  {self.kind}{where}, {self.seconds:.2f} s, #{self.amount}"


class Operation(NamedTuple):
    """What one client does, with its retries."""

    number: int
    at: float
    kind: Literal["order", "bulk", "import", "read", "status", "page", "search", "letters"]
    api: int
    """The process that is asked first; each retry asks the next."""
    names: tuple[str, ...] = ()
    """Of the orders; a name stands for what one client wants once."""
    key: str | None = None
    tries: int = 1
    hot: bool = True
    """By the lane for plain requests, if it is one."""
    wait: bool = False
    """Whether it prefers to wait until the order is persisted."""
    ids: tuple[str, ...] = ()
    """Of the lines of an import, empty for a line without one."""
    target: int = -1
    """Whose orders are read; -1: an order that never was."""
    chunk_lines: int = 2
    pause_seconds: float = 0.0
    """Between two chunks of an import's body."""
    cut_after: int = 0
    """Chunks after which the client hangs up, the first time; 0: it does not."""
    by_line: bool = False
    """Whether an import is resumed by the number of its line, else with the whole body."""
    discard: bool = False
    """Whether an operator discards dead letters, else replays them."""

    def __str__(self) -> str:
        fields = self._asdict()
        told = {
            name: value
            for name, value in fields.items()
            if name not in ("number", "at", "kind") and value != self._field_defaults.get(name)
        }
        return f"{self.at:6.2f} s  #{self.number} {self.kind} {told}"


class Plan(NamedTuple):
    """Everything that is decided before a run."""

    seed: int
    deployment: Deployment
    apis: int
    workers: int
    durable: bool
    """Whether the cache is told to fsync before it answers."""
    replicas: bool
    audits: bool
    """Whether workers audit all stores periodically; without, drift is not repaired by that."""
    dirty_orders_max: int
    clock_offsets: tuple[float, ...]
    """Of the processes' clocks, in seconds."""
    operations: Sequence[Operation]
    faults: Sequence[Fault]

    def __str__(self) -> str:
        clocks = ", ".join(f"{offset:+.1f}" for offset in self.clock_offsets)
        head = (
            f"seed {self.seed}: {self.deployment}, {self.apis} API processes, {self.workers} "
            f"workers, cache {'durable' if self.durable else 'not durable'}"
            f"{' with a replica' if self.replicas else ''}, {'' if self.audits else 'no '}audits, "
            f"at most {self.dirty_orders_max} dirty orders, clocks {clocks} s"
        )
        lines = sorted([(f.at, str(f)) for f in self.faults])
        lines += sorted([(o.at, str(o)) for o in self.operations])
        return "\n".join([head, *(text for _, text in sorted(lines))])


# --- cells of the table ----------------------------------------------------------------------

Cell: TypeAlias = tuple[str, str]
"""A kind of fault, and a kind of step at which it can strike."""


def every_step() -> list[Step]:
    """Return each kind of step once, in order."""
    tables = (
        steps.CACHE,
        steps.QUEUE,
        steps.RECORD,
        steps.LETTERS,
        steps.SALES,
        steps.AUDIT,
        steps.REBUILD,
        steps.SEARCH,
        steps.TARGET,
    )
    single = [value for value in vars(steps).values() if isinstance(value, Step)]
    found = [step for table in tables for step in table.values()] + single
    return list({step.name: step for step in found}.values())


def cells(seen: Sequence[str] | None = None) -> list[Cell]:
    """Return every kind of fault with every kind of step at which it can strike."""
    return [
        (kind, step.name)
        for step in every_step()
        if seen is None or step.name in seen
        for kind in KINDS
        if kind not in CALL_FAULTS or step.may_end_lost
    ]


def cell_text(cell: Cell) -> str:
    """Return how a cell is written on a command line."""
    kind, step = cell
    return f"{kind} at {step}"


def cell_of(text: str) -> Cell:
    """Return the cell that `cell_text` has written.

    Raises:
        ValueError: there is none.
    """
    for cell in cells():
        if cell_text(cell) == text:
            return cell
    raise ValueError(f"no fault of the table strikes there: {text}")
