"""The stores as one process sees them: every port, each of its calls over a link."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, NamedTuple

from polyglot_persistence.bootstrap.stores import AuditStores, Stores
from polyglot_persistence.errors import PolyglotError, UnavailableError
from tests.simulation import steps
from tests.simulation.network import SESSION_END_SECONDS, Link, run
from tests.simulation.steps import Step


class Remote:
    """A port whose calls go over a link; contexts are given as `Contexts`."""

    def __init__(
        self,
        link: Link,
        port: object,
        calls: Mapping[str, Step],
        **others: Callable[..., object],
    ) -> None:
        self._port = port
        for method, step in calls.items():
            bound = getattr(port, method, None)
            if bound is not None:
                setattr(self, method, _remote(link, step, bound))
        for name, other in others.items():
            setattr(self, name, other)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._port, name)


def _remote(link: Link, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*arguments: Any, **options: Any) -> Any:
        return await link.call(step, lambda: run(method(*arguments, **options)))

    return call


class Contexts:
    """The contexts that a process has open at its stores: what ends when it dies."""

    def __init__(self) -> None:
        self._open: list[AbstractAsyncContextManager[Any]] = []
        self.abandoned: list[AbstractAsyncContextManager[Any]] = []
        """Kept, so that nothing collects them while the world is simulated."""

    def opened(self, context: AbstractAsyncContextManager[Any]) -> None:
        """Take note of one."""
        self._open.append(context)

    def closed(self, context: AbstractAsyncContextManager[Any]) -> bool:
        """Forget one; return whether it was open."""
        is_open = context in self._open
        if is_open:
            self._open.remove(context)
        return is_open

    def end_all(self) -> None:
        """End them as the stores do when the process is gone: nothing is committed."""
        ending, self._open = self._open, []
        for context in ending:
            end(context)


def end(context: AbstractAsyncContextManager[Any]) -> None:
    """End a context whose process is gone."""
    error = UnavailableError("the connection was cut")
    try:
        run(context.__aexit__(UnavailableError, error, None))
    except PolyglotError:
        return


class RemoteContext:
    """A context at a store: entering is a call, and so is leaving."""

    def __init__(
        self,
        link: Link,
        enter: Step,
        leave: Step | None,
        make: Callable[[], AbstractAsyncContextManager[Any]],
        *,
        contexts: Contexts,
        wrap: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        self._link = link
        self._enter = enter
        self._leave = leave
        self._make = make
        self._contexts = contexts
        self._wrap = wrap
        self._context: AbstractAsyncContextManager[Any] | None = None

    async def __aenter__(self) -> Any:
        context = self._make()
        self._contexts.abandoned.append(context)

        def enter() -> Any:
            value = run(context.__aenter__())
            self._contexts.opened(context)
            return value

        def release() -> None:
            if self._contexts.closed(context):
                end(context)

        value = await self._link.call(self._enter, enter, release=release)
        self._context = context
        return self._wrap(value)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        context = self._context
        assert context is not None
        if self._leave is None or error is not None:
            # A connection that is closed: the store notices, whatever else happens.
            self._link.network.loop.world_later(SESSION_END_SECONDS / 10, self._end, context)
            return False

        def leave() -> None:
            self._contexts.closed(context)
            run(context.__aexit__(None, None, None))

        try:
            await self._link.call(self._leave, leave)
        except BaseException:
            self._link.network.loop.world_later(SESSION_END_SECONDS, self._end, context)
            raise
        return False

    def _end(self, context: AbstractAsyncContextManager[Any]) -> None:
        network = self._link.network
        if network.held(self._link.store) is not None:  # it notices when it goes on
            network.loop.world_later(SESSION_END_SECONDS, self._end, context)
        elif self._contexts.closed(context):
            end(context)


class RemoteLead:
    """`ports.Lead` over a link."""

    def __init__(self, link: Link, lead: Any) -> None:
        self.confirm = _remote(link, steps.CONFIRM, lead.confirm)


class RemoteConsumer:
    """`ports.Consumer` over a link: the store itself waits for messages."""

    def __init__(self, link: Link, consumer: Any) -> None:
        self._link = link
        self._consumer = consumer

    async def receive(self, wait_seconds: float) -> Sequence[Any]:
        """Receive, unless the queue stands still."""
        link, network = self._link, self._link.network
        await network.until_thawed("queue")
        deliveries: Sequence[Any] = await self._consumer.receive(wait_seconds)
        await network.until_thawed("queue")
        if deliveries:
            network.note(link.caller.name, steps.DELIVER.name)
            fault = network.meet(steps.DELIVER)
            if fault is not None:
                await link.moment(fault)
        return deliveries

    async def ack(self, deliveries: Sequence[Any]) -> None:
        """Acknowledge; if it fails on its way, the channel is dead and they come again."""
        await self._quietly(steps.ACK, lambda: run(self._consumer.ack(deliveries)))

    async def release(self, deliveries: Sequence[Any]) -> None:
        """Hand back, as `ack`."""
        await self._quietly(steps.HAND_BACK, lambda: run(self._consumer.release(deliveries)))

    async def _quietly(self, step: Step, effect: Callable[[], Any]) -> None:
        try:
            await self._link.call(step, effect)
        except PolyglotError:
            self._consumer.die("its connection was cut")


class Ports(NamedTuple):
    """What a process connects to: the ports of the simulated stores, before any link."""

    cache: Any
    queue: Any
    store: Any
    letters: Any
    sales: Any
    search: Any
    contents: Any
    audit: Any
    rebuild_record: Any
    target: Any


def remote_stores(ports: Ports, links: Mapping[str, Link], contexts: Contexts) -> Stores:
    """Return all stores of one process over its links."""
    cache, queue = links["cache"], links["queue"]
    record, search = links["record"], links["search"]

    def consume(*, orders_max: int) -> RemoteContext:
        return RemoteContext(
            queue,
            steps.CONSUME,
            None,
            lambda: ports.queue.consume(orders_max=orders_max),
            contexts=contexts,
            wrap=lambda consumer: RemoteConsumer(queue, consumer),
        )

    def lead(role: str) -> RemoteContext:
        return RemoteContext(
            record,
            steps.LEAD,
            None,
            lambda: ports.store.lead(role),
            contexts=contexts,
            wrap=lambda lead: None if lead is None else RemoteLead(record, lead),
        )

    def claim_outbox(older_than_seconds: float, orders_max: int) -> RemoteContext:
        return RemoteContext(
            record,
            steps.CLAIM,
            steps.CLAIM_END,
            lambda: ports.store.claim_outbox(older_than_seconds, orders_max),
            contexts=contexts,
        )

    def turn() -> RemoteContext:
        return RemoteContext(
            record,
            steps.TURN,
            None,
            ports.letters.turn,
            contexts=contexts,
            wrap=lambda lead: RemoteLead(record, lead),
        )

    def claim_arrivals(orders_max: int) -> RemoteContext:
        return RemoteContext(
            record,
            steps.ARRIVALS,
            steps.ARRIVALS,
            lambda: ports.rebuild_record.claim_arrivals(orders_max),
            contexts=contexts,
        )

    def frozen() -> RemoteContext:
        return RemoteContext(
            search, steps.FREEZE, steps.FREEZE, ports.target.frozen, contexts=contexts
        )

    remote: Any = Remote
    target = remote(search, ports.target, steps.TARGET, frozen=frozen)
    target.building = remote(search, ports.target.building, steps.SEARCH)
    target.contents = remote(search, ports.target.contents, steps.SEARCH)

    async def nothing() -> Sequence[str]:
        return ()

    async def close() -> None:
        return None

    return Stores(
        cache=remote(cache, ports.cache, steps.CACHE),
        queue=remote(queue, ports.queue, steps.QUEUE, consume=consume),
        store=remote(record, ports.store, steps.RECORD, lead=lead, claim_outbox=claim_outbox),
        letters=remote(record, ports.letters, steps.LETTERS, turn=turn),
        sales=remote(record, ports.sales, steps.SALES),
        search=remote(search, ports.search, steps.SEARCH),
        audit=AuditStores(
            remote(record, ports.audit, steps.AUDIT),
            remote(search, ports.contents, steps.SEARCH),
            remote(cache, ports.cache, steps.CACHE),
        ),
        rebuild_record=remote(
            record, ports.rebuild_record, steps.REBUILD, claim_arrivals=claim_arrivals
        ),
        rebuild_target=target,
        migrate=nothing,
        close=close,
    )
