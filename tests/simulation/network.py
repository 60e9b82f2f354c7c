"""The ways from processes to stores: latency, and what can go wrong with a call.

A call leaves its process, arrives at the store, takes effect there in one step, and its reply goes
back. Each leg has a latency of its own. Beyond its deadline a caller gives up, and does not learn
what becomes of its request: one that a frozen store has received takes effect when it thaws.

Invariant: an effect belongs to the world and not to the process: once sent, it happens although its
caller was paused, killed or cancelled meanwhile.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from tests.simulation.loop import Execution, SimulatedLoop
from tests.simulation.plan import CALL_FAULTS, PROCESS_FAULTS, Fault
from tests.simulation.steps import DEADLINE_SECONDS, Step, StoreName

FAST_SECONDS = 0.0015
SLOW_SECONDS = 0.08
SLOW_SHARE = 0.03
"""Of the legs of calls, so many take up to `SLOW_SECONDS`, all others up to `FAST_SECONDS`."""

SESSION_END_SECONDS = 0.05
"""After so long a server has noticed that a connection is gone."""

_NOT_OF_STORES = CALL_FAULTS | PROCESS_FAULTS


class Striker(Protocol):
    """What lets a fault happen."""

    def strike(self, fault: Fault, caller: "Caller | None") -> None:
        """Let it happen now, at the process that has met it."""

    def met(self, fault: Fault) -> None:
        """Take note of a fault that has found its step."""


class Caller(Protocol):
    """A process, as the network sees it."""

    name: str
    execution: Execution


Event: TypeAlias = tuple[float, str, str]
"""One line of a run's trace: when, who, what."""


class Network:
    """What all links share: which faults are armed at which step, and which stores are frozen."""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.loop = loop
        self.seed = seed
        self.striker: Striker | None = None
        self.trace: list[Event] = []
        self.met: Counter[tuple[str, str]] = Counter()
        """How often each kind of fault met each kind of step."""
        self.in_force: dict[StoreName, list[str]] = {}
        """Kinds of the faults that a store has at the moment."""
        self._armed: dict[str, list[Fault]] = {}
        self._frozen: dict[StoreName, list[_Call]] = {}
        self._thawed: dict[StoreName, asyncio.Future[None]] = {}

    # --- faults at steps ---------------------------------------------------------------------

    def arm(self, fault: Fault) -> None:
        """Let a fault strike at the first of its steps that comes."""
        assert fault.step is not None
        self._armed.setdefault(fault.step, []).append(fault)

    def disarm(self, fault: Fault) -> bool:
        """Let it strike no more; return whether it had not."""
        waiting = self._armed.get(fault.step or "", [])
        if fault not in waiting:
            return False
        waiting.remove(fault)
        return True

    def meet(self, step: Step) -> Fault | None:
        """Return the fault that strikes at this step, if any."""
        waiting = self._armed.get(step.name)
        if not waiting:
            return None
        fault = waiting.pop(0)
        self.met[fault.kind, step.name] += 1
        assert self.striker is not None
        self.striker.met(fault)
        return fault

    def strike(self, fault: Fault, caller: Caller | None) -> None:
        """Let a fault of a store or of a process happen."""
        assert self.striker is not None
        self.striker.strike(fault, caller)

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append((self.loop.now, who, what))

    # --- stores that stand still -------------------------------------------------------------

    def freeze(self, stores: tuple[StoreName, ...]) -> None:
        """Let stores stand still: they take requests and do nothing."""
        for store in stores:
            self._frozen.setdefault(store, [])

    def thaw(self, stores: tuple[StoreName, ...]) -> None:
        """Let them go on, with what they have received meanwhile."""
        for store in stores:
            held = self._frozen.pop(store, [])
            if (thawed := self._thawed.pop(store, None)) is not None:
                thawed.set_result(None)
            for call in held:
                call.take_effect()

    def held(self, store: StoreName) -> "list[_Call] | None":
        """Return what a frozen store has received; None if it is not frozen."""
        return self._frozen.get(store)

    async def until_thawed(self, store: StoreName) -> None:
        """Return once a store does not stand still."""
        while store in self._frozen:
            if store not in self._thawed:
                self._thawed[store] = self.loop.create_future()
            await asyncio.shield(self._thawed[store])


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what a simulated store does: it never waits."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    coroutine.close()
    raise AssertionError("a simulated store waits inside of a call")


class _Call:
    """One request under way."""

    __slots__ = ("caller", "effect", "fault", "future", "link", "release", "sent_at", "step")

    def __init__(
        self,
        link: "Link",
        step: Step,
        effect: Callable[[], Any],
        release: Callable[[], Any] | None,
        fault: Fault | None,
    ) -> None:
        self.link = link
        self.step = step
        self.effect = effect
        self.release = release
        self.fault = fault
        self.sent_at = link.network.loop.now
        self.future: asyncio.Future[Any] = link.network.loop.create_future()

    def arrive(self) -> None:
        """Reach the store."""
        link, store = self.link, self.link.store
        network = link.network
        held = network.held(store)
        if held is not None:
            held.append(self)
            network.loop.world_later(self._left_seconds(), self.give_up)
            return
        self.take_effect()

    def take_effect(self) -> None:
        """Let the store do it, and send the reply."""
        link, fault = self.link, self.fault
        network = link.network
        for kind in network.in_force.get(link.store, ()):
            network.met[kind, self.step.name] += 1
        is_stores = fault is not None and fault.kind not in _NOT_OF_STORES
        if is_stores and fault is not None and not fault.after:
            network.strike(fault, link.caller)
            if network.held(link.store) is not None:
                self.fault = None
                self.arrive()
                return
        error: Exception | None = None
        value = None
        try:
            value = self.effect()
        except Exception as raised:  # noqa: BLE001  the caller gets it, whatever it is
            error = raised
        network.note(link.caller.name, self.step.name if error is None else f"{self.step.name} !")
        if is_stores and fault is not None and fault.after:
            network.strike(fault, link.caller)
        if fault is not None and fault.kind == "reply lost":
            network.loop.world_later(min(fault.seconds, self._left_seconds()), self.give_up)
            self._let_go(error)
            return
        delay = link.latency()
        if fault is not None and fault.kind == "reply late":
            delay = self._left_seconds() * 0.95
        network.loop.world_later(delay, self.reply, value, error)

    def reply(self, value: Any, error: Exception | None) -> None:
        """Reach the caller with what the store said."""
        fault = self.fault
        if fault is not None and fault.kind in PROCESS_FAULTS and fault.after:
            self.link.network.strike(fault, self.link.caller)
        if self.future.done() or not self.link.caller.execution.alive:
            self._let_go(error)
        elif error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)

    def give_up(self) -> None:
        """Reach the deadline without a reply."""
        if not self.future.done():
            error = UnknownOutcomeError if self.step.writes else UnavailableError
            self.future.set_exception(error(f"no reply to {self.step.name}"))

    def _let_go(self, error: Exception | None) -> None:
        """End the session that nobody has: the store notices in a while."""
        if self.release is not None and error is None:
            self.link.network.loop.world_later(SESSION_END_SECONDS, self.release)

    def _left_seconds(self) -> float:
        gone = self.link.network.loop.now - self.sent_at
        return max(0.0, DEADLINE_SECONDS[self.link.store] - gone)


class Link:
    """One process's way to one store."""

    def __init__(self, network: Network, caller: Caller, store: StoreName) -> None:
        self.network = network
        self.caller = caller
        self.store: StoreName = store
        self._random = random.Random(f"{network.seed} {caller.name} {store}").random

    def latency(self) -> float:
        """Return how long one leg takes."""
        chance = self._random()
        if chance < SLOW_SHARE:
            return chance / SLOW_SHARE * SLOW_SECONDS
        return chance * FAST_SECONDS

    async def call(
        self,
        step: Step,
        effect: Callable[[], Any],
        *,
        release: Callable[[], Any] | None = None,
    ) -> Any:
        """Have the store do something; raises what the port's contract says.

        `release` undoes an effect whose caller is gone before it learnt of it.
        """
        network = self.network
        fault = network.meet(step)
        if fault is not None:
            await self._before(fault)
        call = _Call(self, step, effect, release, fault)
        if fault is None or fault.kind not in ("request lost", "effect late"):
            network.loop.world_later(self.latency(), call.arrive)
        elif fault.kind == "request lost":
            self._lose(call, fault)
        else:
            deadline = DEADLINE_SECONDS[self.store]
            network.loop.world_later(deadline, call.give_up)
            network.loop.world_later(deadline + fault.seconds, call.arrive)
        return await call.future

    def _lose(self, call: _Call, fault: Fault) -> None:
        loop = self.network.loop
        if fault.amount % 2:  # the caller cannot know that it never arrived
            loop.world_later(DEADLINE_SECONDS[self.store], call.give_up)
        else:
            loop.world_later(self.latency(), call.reply, None, UnavailableError("refused"))

    async def _before(self, fault: Fault) -> None:
        if fault.kind in PROCESS_FAULTS and not fault.after:
            await self.moment(fault)

    async def moment(self, fault: Fault) -> None:
        """Let a fault strike here; the process goes on from here, if at all."""
        self.network.strike(fault, self.caller)
        await asyncio.sleep(0)
