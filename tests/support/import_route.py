"""The import's route over a flow that answers as a test tells it to."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import httpx2

from polyglot_persistence.api.orders.importing import ImportRoute
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.bodies import SlowSenderError
from polyglot_persistence.api.web.endpoint import Endpoint, Method
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import (
    ConflictError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.flows.intake.accept import AcceptFlow, ImportLine, LineOutcome
from tests.support.eventually import WAIT_SECONDS
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS

CHUNK = 3
LINE_BYTES_MAX = 200
ROW_MAX = 150
NDJSON = {"content-type": "application/x-ndjson"}
KEY = {"idempotency-key": '"abc"'}
REPORT = "?on_rejected=report"


class Accepting:
    """Accepts lines as the flow does, or answers as a test tells it to."""

    def __init__(self) -> None:
        self.chunks: list[list[ImportLine]] = []
        self.stored: dict[UUID, ImportLine] = {}
        self.answer: Callable[[ImportLine], PolyglotError | None] = lambda _line: None

    async def accept_lines(self, lines: Sequence[ImportLine]) -> Sequence[LineOutcome]:
        self.chunks.append(list(lines))
        return [self._accept(line) for line in lines]

    def _accept(self, line: ImportLine) -> LineOutcome:
        order_id = line.id or new_id()
        error = self.answer(line)
        if isinstance(error, UnavailableError):
            return LineOutcome(order_id, error=error)
        if (there := self.stored.get(order_id)) is not None:
            same = there.content == line.content
            return LineOutcome(order_id, same, None if same else ConflictError("other content"))
        self.stored[order_id] = line
        return LineOutcome(order_id, error=error)  # an unknown outcome that did take effect


class Setup:
    """An import route over `Accepting`, and a client of it."""

    def __init__(self, rejected_in_a_row_max: int = ROW_MAX) -> None:
        self.accepting = Accepting()
        self.clock = FakeClock()
        self.stopping = asyncio.Event()
        route = ImportRoute(
            cast("AcceptFlow", self.accepting),
            self.clock,
            replace(
                LIMITS,
                import_line_bytes_max=LINE_BYTES_MAX,
                import_rejected_in_a_row_max=rejected_in_a_row_max,
                import_chunk_orders=CHUNK,
                import_wait_seconds=60.0,
            ),
            self.stopping,
        )
        self.access = Access()
        self.app = Endpoint("/import", {"POST": Method(Scope.WRITE, route.run, None)}, self.access)
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://test"
        )

    async def send(
        self, *lines: object, headers: dict[str, str] | None = None, query: str = ""
    ) -> tuple[int, dict[str, Any]]:
        body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        return await self.post(body.encode(), headers, query)

    async def post(
        self, body: bytes, headers: dict[str, str] | None = None, query: str = ""
    ) -> tuple[int, dict[str, Any]]:
        answer = await self.client.post(
            f"/import{query}", content=body, headers={**NDJSON, **(headers or {})}
        )
        return answer.status_code, answer.json()

    async def cut(
        self, beginning: bytes, headers: dict[str, str] | None = None, *, late: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Send the beginning of a body; the server stops, or gives up, before the rest comes."""
        parts = [beginning]

        async def receive() -> dict[str, object]:
            if not parts and late:
                raise SlowSenderError("the body arrived too slowly")
            if not parts:
                self.stopping.set()
                await asyncio.Event().wait()
            return {"type": "http.request", "body": parts.pop(), "more_body": True}

        replies: list[Any] = []

        async def send(message: Any) -> None:
            replies.append(message)

        names = {**NDJSON, "transfer-encoding": "chunked", **(headers or {})}
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/import",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in names.items()],
        }
        async with asyncio.timeout(WAIT_SECONDS):
            await self.app(scope, receive, send)
        self.stopping.clear()
        assert (b"connection", b"close") in replies[0]["headers"]
        return replies[0]["status"], json.loads(replies[1]["body"])


def order(name: str, **more: object) -> dict[str, object]:
    """Return a valid line."""
    return {"product_name": name, "amount": 1, **more}


def outcomes_by_name(setup: Setup, **by_name: Sequence[PolyglotError | None]) -> None:
    """Plan the outcome of each attempt at a line; the last one goes on for ever."""
    planned = {name: list(outcomes) for name, outcomes in by_name.items()}

    def answer(line: ImportLine) -> PolyglotError | None:
        outcomes = planned.get(line.content[0], [None])
        return outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]

    setup.accepting.answer = answer


LOST, FULL = UnknownOutcomeError("lost"), UnavailableError("full")
