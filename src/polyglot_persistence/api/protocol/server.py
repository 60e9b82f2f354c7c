"""Runs uvicorn's server as a task of the program.

This uses uvicorn's socket server, graceful stop and default headers; `connection` implements HTTP.

Invariant: signals and the event loop belong to the program; nothing here touches them.
Invariant: an occupied port raises `ConfigurationError` and never exits the program.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from polyglot_persistence.api.protocol.connection import Connection
from polyglot_persistence.api.protocol.front import ANY_FRONT, Front
from polyglot_persistence.api.protocol.in_flight import Shared
from polyglot_persistence.api.web.replies import Headers
from polyglot_persistence.config.http import HttpLimits
from polyglot_persistence.errors import ConfigurationError
from polyglot_persistence.telemetry import logger

_log = logger("api")

BACKLOG = 2_048
"""Connections that the kernel queues until they are accepted; it may lower this number."""
SWEEP_SECONDS = 0.1
"""Between two looks at all deadlines; one look at 4,096 connections takes 0.13 ms. A new timer with
every answer took a fifth of the time of a remembered read."""
LATE_SECONDS = 0.1
"""Time for connections that the kernel accepted just before a stop to send their request."""
TELL_SECONDS = 10.0
"""Interval of log lines about refused connections."""


class _Server(uvicorn.Server):
    """uvicorn's server, without signal handlers, and with a callback once it serves."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        notices: Callable[[], Headers],
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._notices = notices
        self._noticed: Headers = ()

    async def on_tick(self, counter: int) -> bool:
        # uvicorn renews the headers of all answers when the counter says so; here also when
        # there is something new to say, so that saying it costs no request anything.
        notices = self._notices()
        if notices != self._noticed:
            self._noticed = notices
            self.config.encoded_headers = list(notices)
            counter = 0
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the connections of the kernel's backlog, then close the listeners.

        The kernel resets connections that nobody has accepted when their listener is closed,
        although their clients see them as open and may have sent a request.
        """
        late = [one for listener in sockets or () for one in _accept_all(listener)]
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        loop = asyncio.get_running_loop()
        for one in late:
            with contextlib.suppress(OSError):  # its client has hung up
                await loop.connect_accepted_socket(self._protocol, one)
        if late:
            await asyncio.sleep(LATE_SECONDS)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        config = self.config
        made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Return the connections in the backlog of a listener that does not block."""
    with contextlib.suppress(OSError):  # there are no more, or no more files
        while True:
            one, _ = listener.accept()
            one.setblocking(False)
            yield one


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a TCP port (0: any free one).

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
    """
    return _listen(host, port, shared=False)


def listen_together(host: str, port: int, number: int) -> Sequence[socket.socket]:
    """Return sockets that share a TCP port; the kernel distributes connections over them.

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
    """
    if number == 1:
        return [listen(host, port)]
    # One that does not share finds out whether anybody is there, also somebody who would share.
    listen(host, port).close()
    first = _listen(host, port, shared=True)
    port = first.getsockname()[1]
    return [first, *(_listen(host, port, shared=True) for _ in range(number - 1))]


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} is taken by another program; choose another port"
            ) from error
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    limits: HttpLimits,
    shutdown: asyncio.Event,
    graceful_seconds: float,
    on_ready: Callable[[], None],
    notices: Callable[[], Headers] = tuple,
    protocol: type[Connection] = Connection,
    front: Front = ANY_FRONT,
) -> None:
    """Serve until `shutdown` is set and every request under way is answered.

    `on_ready` is called once connections are accepted. All answers carry the headers `notices`, as
    they were 0.1 s ago at the latest. Requests that take longer than
    `graceful_seconds` to end are cancelled.
    """
    shared = Shared(limits, front)
    config = uvicorn.Config(
        app,
        http=type(protocol.__name__, (protocol,), {"shared": shared}),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, round(graceful_seconds)),
    )
    server = _Server(config, on_ready, notices)

    async def stop() -> None:
        await shutdown.wait()
        server.should_exit = True

    async with asyncio.TaskGroup() as tasks:
        beside = [
            tasks.create_task(stop()),
            tasks.create_task(_sweep(server)),
            tasks.create_task(_tell_refused(shared)),
        ]
        try:
            await server.serve(sockets=[listener])
        finally:
            for task in beside:
                task.cancel()
            # Before the listener: an event loop that still listens on a closed one never closes.
            for one in getattr(server, "servers", ()):  # cut off, uvicorn leaves them open
                one.close()
            listener.close()


async def _sweep(server: uvicorn.Server) -> None:
    """Check the deadlines of all connections periodically."""
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        _expire(server, clock())


def _expire(server: uvicorn.Server, now: float) -> None:
    """Act on overdue connections; a function, so that no local keeps one alive between checks."""
    connections: list[Connection] = list(server.server_state.connections)  # type: ignore[arg-type]
    for connection in connections:
        if connection.deadline <= now or connection.write_deadline <= now:
            connection.expire(now)


async def _tell_refused(shared: Shared) -> None:
    """Log periodically how many connections were refused."""
    while True:
        await asyncio.sleep(TELL_SECONDS)
        if refused := shared.crowd.take_refused():
            _log.warning(
                "connections_refused",
                number=refused,
                connections_max=shared.limits.connections_max,
                address_connections_max=shared.limits.address_connections_max,
            )
