"""One connection: parses a client's bytes into requests, one at a time, and writes the answers.

```
            first byte         end of head           end of body        end of answer
   HEAD ----------------> HEAD ------------> BODY ----------------> ANSWER ---> HEAD
    |  idle_seconds_max     |  head_seconds_max |  patience, request_seconds_max
    +--> closed             +--> 408            +--> 408, by the request's own lane
```

A request starts when the answer to the one before it is complete. In the meantime at most one read
of bytes is kept, and nothing more is read. So a refusal of later bytes cannot replace an answer,
nothing is written into the middle of an answer, and a long pipeline costs no more than a short one.

Invariant: every connection has a deadline, except while its request is complete and the service
has to answer; then the stores' deadlines apply, or the client's reading (`write_seconds_max`).
Invariant: both lanes bound a client's bytes in the same way before they keep them.
Invariant: kept bytes are counted in `in_flight`, which drops the oldest.
"""

import asyncio
import math
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from polyglot_persistence.api.protocol.chunked import BadChunkError, ChunkedBody
from polyglot_persistence.api.protocol.exchange import AsgiExchange, Exchange, asgi_scope
from polyglot_persistence.api.protocol.head_reader import HeadReader
from polyglot_persistence.api.protocol.heads import BadHeadError, Head, read_target, with_host
from polyglot_persistence.api.protocol.held_writes import HeldTransport
from polyglot_persistence.api.protocol.in_flight import Shared
from polyglot_persistence.api.protocol.remote import Remote
from polyglot_persistence.api.protocol.rendering import (
    CLOSE_LINE,
    STATUS_LINES,
    default_lines,
    lines,
)
from polyglot_persistence.api.web.bodies import BrokenBodyError, SlowSenderError
from polyglot_persistence.api.web.problems import TOO_SLOW, UNAVAILABLE, Kind, problem
from polyglot_persistence.api.web.replies import Headers

RETRY_HEADERS: Headers = ((b"retry-after", b"1"),)
READ_AHEAD_BYTES = 64 * 1_024
"""Of a body, kept for a route that does not take it; then nothing is read until it does."""
REQUESTS_A_TURN = 32
"""Of one connection, before others have their turn: about a millisecond of remembered reads."""
LINGER_SECONDS = 2.0
LINGER_BYTES_MAX = 2**20
"""How long, and how much, is read on after a refusal. A connection that is closed over unread
bytes is reset, and the answer may be lost with it."""

_CROWDED = "the server has to keep too much for others; send the request again, and faster"


# Where in a request a connection is; plain numbers, for they are compared with every request.
_HEAD = 0
"""Before or within the head."""
_BODY = 1
_ANSWER = 2
"""The request is complete, its answer is not. What is read is kept for later."""
_ENDING = 3
"""The answer is under way, and the last one. Nothing more is taken."""
_CLOSED = 4
"""No answer follows. What is read is dropped."""


class Connection(asyncio.Protocol):
    """One connection whose requests go to the ASGI application."""

    shared: Shared
    """`serve` sets it, in a class of its own for each server."""
    transport: HeldTransport

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002  of a lifespan, which there is none of
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.deadline = math.inf
        self.write_deadline = math.inf
        self.held_bytes = 0
        self.head = HeadReader(self.shared.limits)
        self.remote = Remote(self.shared.front)
        self.write_paused = False
        self._app = config.loaded_app
        self._state = server_state
        self._limits = self.shared.limits
        self._is_fronted = False
        self._phase = _HEAD
        self._exchange: Exchange | None = None
        self._is_taking = False
        self._is_stopping = False
        self._is_at_end = False
        self._ahead = b""
        self._read_paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._chunks: ChunkedBody | None = None
        self._body_left = 0
        self._patience_left = 0.0
        self._request_deadline = math.inf
        self._lingered_bytes = 0

    # --- the event loop's side ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head, or refuse the connection."""
        self.transport = HeldTransport(transport, self.shared.turn)
        self._state.connections.add(self)  # type: ignore[arg-type]  # it is told to shut down
        self.remote.connected(transport)
        self._is_fronted = self.remote.is_fronted
        self.deadline = self.loop.time() + self._limits.head_seconds_max
        if reason := self.shared.crowd.enter(self.remote.network):
            self._refuse(UNAVAILABLE, reason, RETRY_HEADERS, linger=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever it was
        """Release everything, reference cycles included, so that no garbage remains."""
        self._state.connections.discard(self)
        self.shared.crowd.leave(self.remote.network)
        self._release(self.held_bytes)
        self._ahead = b""
        self._phase = _CLOSED
        self.deadline = self.write_deadline = math.inf
        self.resume_writing()
        self.head.close()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost()

    def data_received(self, data: bytes) -> None:
        """Process the bytes, or keep them until it is their turn."""
        if self._phase == _ANSWER or self._ahead or (self.write_paused and self._phase == _HEAD):
            self._keep_ahead(data)
        else:
            self._take(data)

    def eof_received(self) -> bool:
        """Answer complete requests, then close; returns true so that the loop does not close."""
        self._is_at_end = True
        if self._phase != _BODY or not self._ahead:
            self._end_of_input()
        return True

    def _end_of_input(self) -> None:
        if self._phase == _BODY:
            self._phase = _ENDING
            self.deadline = math.inf
        if self._exchange is not None:
            self._exchange.no_more()
        elif not self._ahead:
            self._close()

    def pause_writing(self) -> None:
        """Start to wait for a client that reads too slowly."""
        self.write_paused = True
        self._writable.clear()
        self.write_deadline = self.loop.time() + self._limits.write_seconds_max

    def resume_writing(self) -> None:
        """Resume writing, and process the bytes kept in the meantime."""
        self.write_paused = False
        self._writable.set()
        self.write_deadline = math.inf
        if self._phase == _HEAD and self._ahead and not self._is_taking:
            self.loop.call_soon(self._go_on)

    # --- the server's side ---

    def shutdown(self) -> None:
        """Close after the running request, and requests that came with it, are answered."""
        self._is_stopping = True
        if self._ahead:
            return
        if self._exchange is None:
            self._close()
        else:
            self._exchange.keep_alive = False

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if now >= self.write_deadline:
            self.transport.abort()
        elif self.write_paused or now < self.deadline:
            return
        elif self._phase == _CLOSED:
            self.transport.abort()
        elif self._phase == _BODY:
            self._end_body(SlowSenderError("the body arrived too slowly"))
        elif self.head.size:
            seconds = self._limits.head_seconds_max
            self._refuse(TOO_SLOW, f"a request's head must be there in {seconds:g} s")
        else:
            self._close()

    def crowded_out(self) -> None:
        """Drop the bytes kept of incomplete requests."""
        if self._ahead:
            self._release(len(self._ahead))
            self._ahead = b""
            if self._phase == _ANSWER:
                self._phase = _ENDING
        if self._phase == _BODY:
            self._end_body(SlowSenderError(_CROWDED))
        elif self._phase == _HEAD:
            self._refuse(TOO_SLOW, _CROWDED)

    # --- the exchange's side ---

    def default_lines(self) -> bytes:
        """Return the lines of the default headers (the date), rendered once a second."""
        return default_lines(self._state.default_headers)

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        if self.write_paused:
            await self._writable.wait()

    def wants_body(self) -> None:
        """Resume reading, and start the deadline of the body."""
        if self._phase == _BODY:
            self._resume_reading()

    def handed_over(self, size: int) -> None:
        """Stop counting bytes of the body."""
        self._release(min(size, self.held_bytes - len(self._ahead)))

    def hang_up(self) -> None:
        """Close without an answer: nobody can read it, or half of it was written."""
        self._close()

    def answered(self) -> None:
        """Continue with kept bytes or the next head, or close."""
        exchange, self._exchange = self._exchange, None
        if self._phase == _CLOSED or exchange is None:
            return
        if self.held_bytes:
            self._release(self.held_bytes - len(self._ahead))
        if self._phase != _ANSWER:
            self._close(linger=not self._is_at_end)
        elif not exchange.keep_alive:
            self._close(linger=bool(self._ahead))
        else:
            self._phase = _HEAD
            self.head.next()
            self.deadline = self.loop.time() + self._limits.idle_seconds_max
            if not self._is_taking and (self._read_paused or self._is_at_end or self._is_stopping):
                self._go_on()

    # --- reading ---

    def _go_on(self) -> None:
        """Process the kept bytes, and resume reading."""
        is_its_turn = self._phase == _BODY or (self._phase == _HEAD and not self.write_paused)
        if self._ahead and is_its_turn:
            data, self._ahead = self._ahead, b""
            self._release(len(data))
            self._resume_reading()
            self._take(data)
        if self._phase == _HEAD and not self._ahead:
            if self._is_stopping or self._is_at_end:
                self._close()
            else:
                self._resume_reading()
        elif self._is_at_end and not self._ahead and self._exchange is not None:
            self._end_of_input()

    def _keep_ahead(self, data: bytes) -> None:
        self._ahead += data
        self._pause_reading()
        self._hold(len(data))

    def _take(self, data: bytes) -> None:
        """Process bytes up to the end of a request that is not answered at once."""
        self._is_taking = True
        turns = REQUESTS_A_TURN
        while data:
            phase = self._phase
            if phase == _HEAD:
                if self.write_paused or not turns:
                    self._keep_ahead(data)
                    if not self.write_paused:
                        self.loop.call_soon(self._go_on)
                    break
                turns -= 1
                data = self._take_head(data)
            elif phase == _BODY:
                data = self._take_body(data)
                if data and self._phase == _BODY:  # its framing is too much for one turn
                    self._keep_ahead(data)
                    self.loop.call_soon(self._go_on)
                    break
            elif phase == _ANSWER:
                self._keep_ahead(data)
                break
            else:
                self._linger(len(data))
                break
        self._is_taking = False
        if self._phase == _ANSWER:
            self.deadline = math.inf

    def _take_head(self, data: bytes) -> bytes:
        """Process bytes of a head, and return the bytes after it."""
        head = self.head
        is_first = not head.size
        try:
            rest = head.feed(data)
            if head.complete:
                return self._begin(rest)
            if head.size:
                if is_first:
                    self.deadline = self.loop.time() + self._limits.head_seconds_max
                self._hold(len(data))
        except BadHeadError as error:
            self._refuse(error.kind, error.detail)
            return b""
        return rest

    def _begin(self, rest: bytes) -> bytes:
        """Start the request of a complete head; return the bytes after it, or after its body."""
        if self.held_bytes:
            self._release(self.held_bytes)
        method, head = self.head.read()
        if self._is_fronted:
            self.remote.look(self.head, head)
        exchange = self._exchange = self.exchange_of(method, head)
        length = head.length
        if not length and not head.is_chunked:
            self._phase = _ANSWER
            exchange.body_complete()
            return rest
        self._phase = _BODY
        if length and length <= len(rest):  # all of it came with the head, as it mostly does
            self._chunks = None
            self._body_left = 0
            body, rest = (rest, b"") if length == len(rest) else (rest[:length], rest[length:])
            self._take_piece(exchange, body, is_last=True)
            return rest
        self._chunks = ChunkedBody(self._limits.framing_bytes_max) if head.is_chunked else None
        self._body_left = length or 0
        now = self.loop.time()
        self._request_deadline = now + self._limits.request_seconds_max
        self.deadline = now + self._limits.body_patience_seconds
        return rest

    def exchange_of(self, method: bytes, head: Head) -> Exchange:
        """Return the exchange for a request.

        Raises:
            BadHeadError: its target has no form that a server is sent.
        """
        target = read_target(method, self.head.target)
        headers = self.head.headers
        if target.host is not None:
            headers = with_host(headers, target.host)
        scope = asgi_scope(method, head, target, headers, self.remote)
        scope["polyglot.release"] = self.handed_over
        exchange = AsgiExchange(
            self, scope, keep_alive=head.keep_alive, expects_continue=head.expects_continue
        )
        task = self.loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)
        return exchange

    # --- a body ---

    def _take_body(self, data: bytes) -> bytes:
        """Process bytes of a body, and return the bytes after it."""
        exchange = self._exchange
        assert exchange is not None  # noqa: S101  it is in its body
        if self._chunks is not None:
            try:
                data, rest = self._chunks.feed(data)
            except BadChunkError as error:
                self._end_body(BrokenBodyError(str(error)))
                return b""
            is_complete = self._chunks.complete
        else:
            rest = data[self._body_left :]
            data = data[: self._body_left] if rest else data
            self._body_left -= len(data)
            is_complete = not self._body_left
        self._take_piece(exchange, data, is_last=is_complete)
        if self._phase == _BODY:
            self._await_body(exchange, len(data))
        return rest

    def _take_piece(self, exchange: Exchange, data: bytes, *, is_last: bool) -> None:
        self.head.pass_body(data)
        exchange.body(data)
        if data and (exchange.unread_bytes or not is_last):
            self._hold(len(data))
            if self._phase != _BODY:  # it was one too many
                return
        if is_last:
            self._phase = _ANSWER
            if self.held_bytes:
                self.shared.in_flight.settle(self)
            exchange.body_complete()

    def _await_body(self, exchange: Exchange, size: int) -> None:
        """Extend the deadline for the bytes that arrived."""
        now = self.loop.time()
        limits = self._limits
        patience = min(
            limits.body_patience_seconds,
            max(0.0, self.deadline - now) + size / limits.body_bytes_per_second_min,
        )
        self.deadline = min(now + patience, self._request_deadline)
        if exchange.unread_bytes > READ_AHEAD_BYTES:
            self._pause_reading()

    def _end_body(self, error: SlowSenderError) -> None:
        """Stop reading a body that can never be complete, and answer that."""
        exchange = self._exchange
        assert exchange is not None  # noqa: S101  it is in its body
        self._phase = _ENDING
        self.deadline = math.inf
        self._release(self.held_bytes)
        self._ahead = b""
        self._pause_reading()
        exchange.body_failed(error)

    # --- the end ---

    def _refuse(self, kind: Kind, detail: str, more: Headers = (), *, linger: bool = True) -> None:
        """Answer a refusal before any request started, and close."""
        if self._phase == _CLOSED:
            return
        self._release(self.held_bytes)
        self._ahead = b""
        status, headers, body = problem(kind, detail, "", more)
        self.transport.write(
            b"%b%b%bContent-Length: %d\r\n%b\r\n%b"
            % (
                STATUS_LINES[status],
                self.default_lines(),
                lines(headers),
                len(body),
                CLOSE_LINE,
                body,
            )
        )
        self._close(linger=linger and not self._is_at_end)

    def _close(self, *, linger: bool = False) -> None:
        """Close once everything is written; with `linger`, first read what still arrives."""
        self._phase = _CLOSED
        self._release(self.held_bytes)
        self._ahead = b""
        if linger and not self.transport.is_closing():
            self.deadline = self.loop.time() + LINGER_SECONDS
            self.transport.write_eof()
            self._resume_reading()
        else:
            self.deadline = self.loop.time() + self._limits.write_seconds_max
            self.transport.close()

    def _linger(self, size: int) -> None:
        self._lingered_bytes += size
        if self._lingered_bytes > LINGER_BYTES_MAX and self._phase == _CLOSED:
            self.transport.close()

    # --- counting, and the flow of reading ---

    def _hold(self, size: int) -> None:
        self.shared.in_flight.hold(self, size)

    def _release(self, size: int) -> None:
        self.shared.in_flight.release(self, size)

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            if self._phase == _BODY:
                self._patience_left = self.deadline - self.loop.time()
                self.deadline = math.inf
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if self._phase == _BODY:
                self.deadline = self.loop.time() + self._patience_left
            self.transport.resume_reading()
