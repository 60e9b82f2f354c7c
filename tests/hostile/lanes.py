"""The two lanes in one process, each with flows of its own, asked the same bytes.

A connection is the real one, with the real application behind it; only the socket is left out, so
that ten thousand clients take seconds. `test_lanes_agree` sends the corpus over sockets as well.
"""

import asyncio
import math
import re
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

import uvicorn
from uvicorn.server import ServerState

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.protocol.connection import _ANSWER, _ENDING, Connection
from polyglot_persistence.api.protocol.fast_lane import fast_lane
from polyglot_persistence.api.protocol.hot import HotRoutes
from polyglot_persistence.api.protocol.in_flight import Shared
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.config.http import HttpLimits
from polyglot_persistence.domain.order import Content
from polyglot_persistence.flows.intake.accept import Acceptance, ImportLine, LineOutcome
from tests.support.scripted import FakeClock
from tests.support.stub_flows import ID, LIMITS, StubFlows

TURNS_MAX = 2_000
_DATE = re.compile(rb"\r\nDate: [^\r]*")
_TOOK = re.compile(rb'"took_ms":[0-9.e-]+')
_LENGTH = re.compile(rb"Content-Length: [0-9]+")
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class CountingFlows(StubFlows):
    """Stub flows that count the requests whose orders they took."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def recent(self, id_text: bytes) -> bytes | None:
        return self.remembered if id_text == str(ID).encode() else None

    async def _accept_new(self, content: Content) -> list[Any]:
        taken = await super()._accept_new(content)
        self.taken += 1
        return taken

    async def accept_keyed(self, client: str, key: str, content: Content) -> Acceptance:
        acceptance = await super().accept_keyed(client, key, content)
        self.taken += 1
        return acceptance

    async def accept_bulk(
        self, client: str, key: str | None, items: Sequence[Content]
    ) -> Acceptance:
        acceptance = await super().accept_bulk(client, key, items)
        self.taken += 1
        return acceptance

    async def accept_lines(self, lines: Sequence[ImportLine]) -> Sequence[LineOutcome]:
        self._fail()
        self.accepted += [line.content for line in lines]
        return [LineOutcome(UUID(int=1)) for _ in lines]


def _is_asked(connection: Connection) -> bool:
    """Whether a connection waits for the service, since its request is complete."""
    return connection._phase in (_ANSWER, _ENDING)


class Pipe(asyncio.Transport):
    """Stands in for a socket: what is written is kept, what is sent is read unless it is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: Connection | None = None
        self.written = bytearray()
        self.waiting: deque[bytes | None] = deque()
        self.is_paused = False
        self.is_ended = False
        self._is_closing = False

    def read(self) -> None:
        """Let the connection read one piece; None is the end."""
        assert self.connection is not None
        piece = self.waiting.popleft()
        if piece is not None:
            self.connection.data_received(piece)
        elif not self.connection.eof_received():
            self.close()

    @property
    def is_readable(self) -> bool:
        """Whether the event loop would read."""
        return bool(self.waiting) and not self.is_paused and not self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_ended
        self.written += data

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            assert self.connection is not None
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5) if name in ("peername", "sockname") else default


class Seen(NamedTuple):
    """What one client saw, and what came of its requests."""

    written: bytes
    is_closed: bool
    is_forgotten: bool
    """Whether it was without a deadline at its end, although no answer was due."""
    accepted: Sequence[Content]
    taken: int


class Lane:
    """A server without sockets, with the fast lane or without."""

    def __init__(self, limits: HttpLimits, access: Access, *, is_fast: bool) -> None:
        self.flows = CountingFlows()
        self.shared = Shared(limits)
        flows = self.flows.as_flows()
        app = build_app(flows, LIMITS, clock=FakeClock(), stopping=asyncio.Event(), access=access)
        hot = HotRoutes(
            flows.accept,
            flows.reads,
            body_bytes_max=LIMITS.order_body_bytes_max,
            access=access,
        )
        base = fast_lane(hot) if is_fast else Connection
        self._class = type("Connection", (base,), {"shared": self.shared})
        self._config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
        self._config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"now")]

    async def ask(self, pieces: Sequence[bytes]) -> Seen:
        """Send pieces, then the end of the client's side; return what was answered."""
        before, taken = len(self.flows.accepted), self.flows.taken
        pipe = Pipe()
        connection = cast(
            "Connection",
            self._class(config=self._config, server_state=self.state, app_state={}),
        )
        pipe.connection = connection
        connection.connection_made(pipe)
        pipe.waiting.extend(pieces)
        pipe.waiting.append(None)
        is_forgotten = False
        for _ in range(TURNS_MAX + 10 * len(pieces)):
            if pipe.is_readable:
                if pipe.waiting[0] is None:
                    is_forgotten = connection.deadline == math.inf and not _is_asked(connection)
                pipe.read()
            elif connection not in self.state.connections and not self.state.tasks:
                break
            await asyncio.sleep(0)
        written = _ID.sub(b"ID", _DATE.sub(b"", bytes(pipe.written)))
        if b"/api/search" in b"".join(pieces):  # its answer has a time, whose length varies
            written = _LENGTH.sub(b"Content-Length: ?", _TOOK.sub(b'"took_ms":?', written))
        return Seen(
            written,
            pipe.is_closing(),
            is_forgotten,
            self.flows.accepted[before:],
            self.flows.taken - taken,
        )
