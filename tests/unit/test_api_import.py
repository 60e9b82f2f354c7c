"""The import: totals, errors by line, waiting out a refusal, and how far it got."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from polyglot_persistence.api import bodies
from polyglot_persistence.api.access import Access
from polyglot_persistence.api.endpoint import Endpoint
from polyglot_persistence.api.importing import ERRORS_MAX, ImportRoute
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.domain.order import derived_id, new_id
from polyglot_persistence.errors import (
    ConflictError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.flows.accept import AcceptFlow, ImportLine, LineOutcome
from tests.support.eventually import WAIT_SECONDS
from tests.support.scripted import FakeClock

CHUNK = 3
NDJSON = {"content-type": "application/x-ndjson"}


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
            same = there[:2] == line[:2]
            return LineOutcome(order_id, same, None if same else ConflictError("other content"))
        self.stored[order_id] = line
        return LineOutcome(order_id, error=error)  # an unknown outcome that did take effect


class Setup:
    """An import route over `Accepting`, and a client of it."""

    def __init__(self) -> None:
        self.accepting = Accepting()
        self.clock = FakeClock()
        self.stopping = asyncio.Event()
        route = ImportRoute(
            cast("AcceptFlow", self.accepting),
            self.clock,
            line_bytes_max=200,
            chunk_orders=CHUNK,
            wait_seconds=60.0,
            stopping=self.stopping,
        )
        self.app = Endpoint("/import", {"POST": (Scope.WRITE, route.run)}, Access())
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://test"
        )

    async def send(
        self, *lines: object, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        answer = await self.client.post(
            "/import", content=body.encode(), headers={**NDJSON, **(headers or {})}
        )
        return answer.status_code, answer.json()


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fresh import."""
    setup = Setup()
    async with setup.client:
        yield setup


def order(name: str, **more: object) -> dict[str, object]:
    """Return a valid line."""
    return {"product_name": name, "amount": 1, **more}


async def test_valid_lines_are_accepted_and_others_reported_by_number(setup: Setup) -> None:
    """One bad line takes no neighbour along, and blank lines count."""
    status, out = await setup.send(
        order("a"), "", order(""), "{", order("x" * 300), order("b"), "", order("c")
    )
    assert status == 200
    assert [line.product_name for line in setup.accepting.stored.values()] == ["a", "b", "c"]
    assert out == {
        "accepted": 3,
        "unchanged": 0,
        "rejected": 3,
        "errors": [
            {"line": 3, "detail": "/product_name: must not be empty"},
            {
                "line": 4,
                "detail": "not JSON: Expecting property name enclosed in double quotes "
                "(line 1, column 2)",
            },
            {"line": 5, "detail": "is longer than 200 bytes"},
        ],
        "errors_omitted": 0,
    }


async def test_an_empty_body_is_an_import_of_nothing(setup: Setup) -> None:
    """No line, no order, no error."""
    status, out = await setup.send()
    assert (status, out["accepted"], out["rejected"]) == (200, 0, 0)
    assert setup.accepting.chunks == []


async def test_lines_with_an_id_change_nothing_the_second_time(setup: Setup) -> None:
    """The same line is unchanged; another one under its id is reported with the id."""
    given = new_id()
    await setup.send(order("a", id=str(given)))
    status, out = await setup.send(order("a", id=str(given)), order("b", id=str(given)))
    assert status == 200
    assert (out["accepted"], out["unchanged"], out["rejected"]) == (0, 1, 1)
    assert out["errors"] == [{"line": 2, "detail": "other content", "id": str(given)}]


async def test_a_key_gives_every_line_without_an_id_its_own(setup: Setup) -> None:
    """The id follows from key and line number, so that a retry of the request changes nothing."""
    key = {"idempotency-key": '"abc"'}
    lines = [order("a"), "", order("b", id=str(new_id())), order("c")]
    _, first = await setup.send(*lines, headers=key)
    _, second = await setup.send(*lines, headers=key)
    assert (first["accepted"], second["accepted"], second["unchanged"]) == (3, 0, 3)
    assert {derived_id("", "abc", 1), derived_id("", "abc", 4)} < setup.accepting.stored.keys()


async def test_it_is_accepted_in_chunks(setup: Setup) -> None:
    """However long the stream, the flow is given a bounded number of lines."""
    await setup.send(*[order(str(n)) for n in range(3 * CHUNK + 1)])
    assert [len(chunk) for chunk in setup.accepting.chunks] == [CHUNK] * 3 + [1]


async def test_errors_are_listed_up_to_a_bound_and_counted_beyond(setup: Setup) -> None:
    """A file of a million bad lines has an answer of bounded length."""
    _, out = await setup.send(*["x"] * (ERRORS_MAX + 7))
    assert (len(out["errors"]), out["errors_omitted"], out["rejected"]) == (
        ERRORS_MAX,
        7,
        ERRORS_MAX + 7,
    )


async def test_a_refusal_is_waited_out(setup: Setup) -> None:
    """Lines that are refused for a while are offered again, and only those."""
    until = setup.clock.monotonic() + 30
    setup.accepting.answer = lambda line: (
        UnavailableError("full")
        if line.product_name == "b" and setup.clock.monotonic() < until
        else None
    )
    status, out = await setup.send(order("a"), order("b"), order("c"))
    assert (status, out["accepted"]) == (200, 3)
    assert [line.product_name for line in setup.accepting.chunks[-1]] == ["b"]
    assert len(setup.accepting.chunks) < 60


@pytest.mark.parametrize(
    ("error", "status"),
    [(UnavailableError("full", retry_after_seconds=7), 503), (UnknownOutcomeError("lost"), 504)],
)
async def test_a_refusal_that_lasts_ends_it_with_how_far_it_got(
    setup: Setup, error: PolyglotError, status: int
) -> None:
    """The answer says what was done, and with which line to go on."""
    refused = {"e", "f"}
    setup.accepting.answer = lambda line: error if line.product_name in refused else None
    setup.accepting._accept = (  # type: ignore[method-assign]  # the outcome stays unknown
        lambda line: LineOutcome(line.id or new_id(), error=setup.accepting.answer(line))
    )
    lines = [order("a"), order(""), order("b"), order("c")]
    answered, out = await setup.send(*lines, *[order(name) for name in "defgh"])
    assert answered == status
    assert out["accepted"] == 4
    assert out["rejected"] == 1
    assert out["first_line_not_accepted"] == 6
    assert out["lines_not_accepted"] == [6, 7]
    assert out["lines_read"] == 7
    assert (out["status"], out["instance"]) == (status, "/import")


async def test_an_unknown_outcome_is_tried_again_under_the_same_id(setup: Setup) -> None:
    """A line without an id that was stored, with the answer lost, does not become two orders."""
    lost = iter([UnknownOutcomeError("lost")])
    setup.accepting.answer = lambda _line: next(lost, None)
    status, out = await setup.send(order("a"))
    assert (status, out["accepted"], out["unchanged"]) == (200, 1, 0)
    assert len(setup.accepting.stored) == 1


async def test_it_ends_when_the_server_stops(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is accepted; the answer says with which line to go on."""
    monkeypatch.setattr(bodies, "DISCARD_SECONDS_MAX", 0.01)
    parts = [(json.dumps(order("a")) + "\n" + json.dumps(order("b")) + '\n{"prod').encode()]

    async def receive() -> dict[str, object]:
        if not parts:
            setup.stopping.set()
            await asyncio.Event().wait()
        return {"type": "http.request", "body": parts.pop(), "more_body": True}

    replies: list[Any] = []

    async def send(message: Any) -> None:
        replies.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/import",
        "query_string": b"",
        "headers": [(b"content-type", b"application/x-ndjson"), (b"transfer-encoding", b"chunked")],
    }
    async with asyncio.timeout(WAIT_SECONDS):
        await setup.app(scope, receive, send)
    assert replies[0]["status"] == 503
    out = json.loads(replies[1]["body"])
    assert (out["accepted"], out["first_line_not_accepted"]) == (2, 3)
    assert (b"connection", b"close") in replies[0]["headers"]


async def test_another_content_type_is_refused(setup: Setup) -> None:
    """JSON is not newline-delimited JSON."""
    answer = await setup.client.post("/import", json=order("a"))
    assert answer.status_code == 415
    assert setup.accepting.stored == {}
