"""uvicorn with the guards that it lacks, run as a task of the program and not as its master.

- A head (request line and headers) must be complete `HEAD_SECONDS_MAX` after its first byte, and
  after the connection was made; it may have about `HEAD_BYTES_MAX`. uvicorn bounds neither.
- A body that stands still for `BODY_IDLE_SECONDS_MAX`, while we are willing to read it, ends the
  connection. `bodies` is stricter and answers; this is for what waits for a body without it.
- A client that does not read its answers is cut off after `WRITE_SECONDS_MAX`.
- An `Upgrade` that is not followed (Java's client asks for h2c by default) does not cost the
  request its body; uvicorn takes the body for the next request, which a proxy in between does not.
- Connections are counted, and above `CONNECTIONS_MAX` a new one is told 503.

Invariant: signals and the event loop belong to the program; nothing here touches them.
Invariant: a port that is taken is a `ConfigurationError`, never an exit from inside.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from polyglot_persistence.api.held_writes import HeldTransport, Turn
from polyglot_persistence.api.problems import (
    HEAD_TOO_LARGE,
    MALFORMED,
    TOO_SLOW,
    UNAVAILABLE,
    Kind,
    problem,
)
from polyglot_persistence.api.replies import Headers
from polyglot_persistence.errors import ConfigurationError

HEAD_SECONDS_MAX = 10.0
HEAD_BYTES_MAX = 64 * 1_024
BODY_IDLE_SECONDS_MAX = 30.0
WRITE_SECONDS_MAX = 60.0
KEEP_ALIVE_SECONDS = 30
CONNECTIONS_MAX = 4_096
RETRY_HEADERS: Headers = ((b"retry-after", b"1"),)
BACKLOG = 2_048
"""Connections that the kernel holds until they are accepted; it lowers this to its own limit."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection: uvicorn's protocol, with deadlines for a client's head and its reading."""

    turn: Turn
    """Shared by all connections of a server; `serve` sets it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(HeldTransport(transport, self.turn))
        self.access_log = False  # whatever logging was set up to do
        self.in_head = True
        self._head_bytes = 0
        self._head_deadline: asyncio.TimerHandle | None = None
        self._in_body = False
        self._body_heard_at = 0.0
        self._body_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse(UNAVAILABLE, "too many connections are open", RETRY_HEADERS)
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the deadlines."""
        self._head_done()
        self._body_done()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and watch a head or body that is still incomplete afterwards."""
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("this is no HTTP/1.1 request")
        if self.transport.is_closing():
            return
        if self._in_body:
            self._await_body()
        if self.in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(HEAD_TOO_LARGE, f"a request's head may have {HEAD_BYTES_MAX} bytes")
            elif self._head_deadline is None:
                self._await_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self.head_begins()
        super().on_message_begin()

    def head_begins(self) -> None:
        """Count the bytes of a new head from now on."""
        self.in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """The head is there."""
        self.head_is_complete()
        super().on_headers_complete()

    def head_is_complete(self) -> None:
        """Wait for the body from now on."""
        self.in_head = False
        self._in_body = True
        if self._head_deadline is not None:
            self._head_done()

    def on_message_complete(self) -> None:
        """The body is there, too."""
        self._in_body = False
        if self._body_deadline is not None:
            self._body_done()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered: begin to wait for it."""
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(WRITE_SECONDS_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as a problem."""
        self._refuse(MALFORMED, msg)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser is done with HTTP after this head; what follows is for a new one.
            self.parser = self._parser_of_the_rest()
            if rest := data[upgrade.args[0] :]:
                self._feed(rest)

    def _parser_of_the_rest(self) -> httptools.HttpRequestParser:
        """Return a parser for the body of the request whose head has just been parsed."""
        framing = [
            b"%b: %b\r\n" % header
            for header in self.headers
            if header[0] in (b"content-length", b"transfer-encoding")
        ]
        if not framing:
            return httptools.HttpRequestParser(self)
        callbacks = _AfterHead(self)
        parser = httptools.HttpRequestParser(callbacks)
        parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        callbacks.head_done = True
        self._in_body = self.cycle.more_body = not callbacks.body_done
        return parser

    def _await_head(self) -> None:
        self._head_deadline = self.loop.call_later(HEAD_SECONDS_MAX, self._head_late)

    def _head_done(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _head_late(self) -> None:
        self._head_deadline = None
        if self._head_bytes:
            self._refuse(TOO_SLOW, f"a request's head must be there in {HEAD_SECONDS_MAX:.0f} s")
        else:
            self.transport.close()  # it never said anything

    def _await_body(self) -> None:
        self._body_heard_at = self.loop.time()
        if self._body_deadline is None:
            self._body_deadline = self.loop.call_later(BODY_IDLE_SECONDS_MAX, self._body_late)

    def _body_done(self) -> None:
        if self._body_deadline is not None:
            self._body_deadline.cancel()
            self._body_deadline = None

    def _body_late(self) -> None:
        """Hang up if nothing came; not if we did not read, or something came since."""
        self._body_deadline = None
        if self.flow.read_paused:
            self._await_body()
            return
        left = self._body_heard_at + BODY_IDLE_SECONDS_MAX - self.loop.time()
        if left > 0:
            self._body_deadline = self.loop.call_later(left, self._body_late)
        else:
            self.transport.abort()

    def _refuse(self, kind: Kind, detail: str, more: Headers = ()) -> None:
        """Answer before there is a request, and hang up."""
        self._head_done()
        if self.transport.is_closing():
            return
        status, headers, body = problem(kind, detail, "", more)
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, kind.title.encode(), head, len(body), body)
        )
        self.transport.close()


class _AfterHead:
    """A parser's callbacks, passed on once a head is over that the protocol has had already."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self.head_done = False
        self.body_done = False

    def on_message_begin(self) -> None:
        if self.head_done:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self.head_done:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.head_done:
            self._protocol.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        self.body_done = True  # within the head already, if the body has no bytes
        if self.head_done:
            self._protocol.on_message_complete()


class _Server(uvicorn.Server):
    """uvicorn's server, that leaves signals alone and tells when it serves."""

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


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a TCP port (0: any free one).

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
    """
    return _listen(host, port, shared=False)


def listen_together(host: str, port: int, number: int) -> Sequence[socket.socket]:
    """Return so many sockets that share a TCP port; the kernel spreads connections over them.

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
    shutdown: asyncio.Event,
    graceful_seconds: float,
    on_ready: Callable[[], None],
    notices: Callable[[], Headers] = tuple,
    protocol: type[GuardedProtocol] = GuardedProtocol,
) -> None:
    """Serve until `shutdown` is set and every request under way is answered.

    `on_ready` is called once connections are accepted. All answers carry the headers `notices`, as
    they were 0.1 s ago at the latest. Requests that take longer than
    `graceful_seconds` to end are cancelled.
    """
    config = uvicorn.Config(
        app,
        http=type(protocol.__name__, (protocol,), {"turn": Turn()}),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(graceful_seconds)),
    )
    server = _Server(config, on_ready, notices)

    async def stop() -> None:
        await shutdown.wait()
        server.should_exit = True

    async with asyncio.TaskGroup() as tasks:
        stopper = tasks.create_task(stop())
        try:
            await server.serve(sockets=[listener])
        finally:
            stopper.cancel()
            listener.close()
