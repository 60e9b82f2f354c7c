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
        self._is_over = False

    def opened(self, context: AbstractAsyncContextManager[Any]) -> None:
        """Take note of one; it ends at once if its call outlived the process."""
        if self._is_over:
            end(context)
        else:
            self._open.append(context)

    def closed(self, context: AbstractAsyncContextManager[Any]) -> bool:
        """Forget one; return whether it was open."""
        is_open = context in self._open
        if is_open:
            self._open.remove(context)
        return is_open

    def end_all(self) -> None:
        """End them as the stores do when the process is gone: nothing is committed."""
        self._is_over = True
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


class _Remotes:
    """Makes the remote ports of one process."""

    def __init__(self, ports: Ports, links: Mapping[str, Link], contexts: Contexts) -> None:
        self._ports = ports
        self._contexts = contexts
        self._cache, self._queue = links["cache"], links["queue"]
        self._record, self._search = links["record"], links["search"]

    def stores(self) -> Stores:
        """Return all of them."""
        ports = self._ports
        remote: Any = Remote
        cache = remote(self._cache, ports.cache, steps.CACHE)
        return Stores(
            cache=cache,
            queue=remote(self._queue, ports.queue, steps.QUEUE, consume=self._consume),
            record=remote(
                self._record,
                ports.store,
                steps.RECORD,
                lead=self._lead,
                claim_outbox=self._claim_outbox,
            ),
            letters=remote(self._record, ports.letters, steps.LETTERS, turn=self._turn),
            sales=remote(self._record, ports.sales, steps.SALES),
            search=remote(self._search, ports.search, steps.SEARCH),
            audit=AuditStores(
                remote(self._record, ports.audit, steps.AUDIT),
                remote(self._search, ports.contents, steps.SEARCH),
                cache,
            ),
            rebuild_record=remote(
                self._record,
                ports.rebuild_record,
                steps.REBUILD,
                claim_arrivals=self._claim_arrivals,
            ),
            rebuild_target=self._target(),
            migrate=_nothing,
            close=_nothing,
        )

    def _target(self) -> Any:
        target: Any = Remote(self._search, self._ports.target, steps.TARGET, frozen=self._frozen)
        target.building = Remote(self._search, self._ports.target.building, steps.SEARCH)
        target.contents = Remote(self._search, self._ports.target.contents, steps.SEARCH)
        return target

    def _context(
        self,
        link: Link,
        entering: tuple[Step, Step | None],
        make: Callable[[], AbstractAsyncContextManager[Any]],
        wrap: Callable[[Any], Any] = lambda value: value,
    ) -> RemoteContext:
        return RemoteContext(link, *entering, make, contexts=self._contexts, wrap=wrap)

    def _consume(self, *, orders_max: int) -> RemoteContext:
        return self._context(
            self._queue,
            (steps.CONSUME, None),
            lambda: self._ports.queue.consume(orders_max=orders_max),
            lambda consumer: RemoteConsumer(self._queue, consumer),
        )

    def _lead(self, role: str) -> RemoteContext:
        return self._context(
            self._record,
            (steps.LEAD, None),
            lambda: self._ports.store.lead(role),
            lambda lead: None if lead is None else RemoteLead(self._record, lead),
        )

    def _claim_outbox(self, older_than_seconds: float, orders_max: int) -> RemoteContext:
        return self._context(
            self._record,
            (steps.CLAIM, steps.CLAIM_END),
            lambda: self._ports.store.claim_outbox(older_than_seconds, orders_max),
        )

    def _turn(self) -> RemoteContext:
        return self._context(
            self._record,
            (steps.TURN, None),
            self._ports.letters.turn,
            lambda lead: RemoteLead(self._record, lead),
        )

    def _claim_arrivals(self, orders_max: int) -> RemoteContext:
        return self._context(
            self._record,
            (steps.ARRIVALS, steps.ARRIVALS),
            lambda: self._ports.rebuild_record.claim_arrivals(orders_max),
        )

    def _frozen(self) -> RemoteContext:
        return self._context(self._search, (steps.FREEZE, steps.FREEZE), self._ports.target.frozen)


async def _nothing() -> Any:
    return ()


def remote_stores(ports: Ports, links: Mapping[str, Link], contexts: Contexts) -> Stores:
    """Return all stores of one process over its links."""
    return _Remotes(ports, links, contexts).stores()
