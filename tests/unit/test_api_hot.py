"""The two hot routes answer byte for byte as the framework's handlers of the same routes do."""

import asyncio
from typing import Any

import pytest

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.hot import HotRoutes
from polyglot_persistence.errors import NotFoundError, UnavailableError, UnknownOutcomeError
from tests.support.scripted import FakeClock
from tests.support.stub_flows import ID, LIMITS, StubFlows

JSON = (b"content-type", b"application/json")
TEA = b'{"product_name":"Tea","amount":12.5}'


async def _ask(
    app: Any, method: str, path: str, headers: list[tuple[bytes, bytes]], parts: list[bytes]
) -> list[Any]:
    """Return the messages that answer one request, as a server would get them."""
    received = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return received.pop(0) if received else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return sent


def _headers(body: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % len(body)), *(more or (JSON,))]


@pytest.mark.parametrize(
    "error", [None, NotFoundError("no"), UnavailableError("away"), UnknownOutcomeError("lost")]
)
@pytest.mark.parametrize(
    ("method", "path", "headers", "parts"),
    [
        ("POST", "/api/orders", _headers(TEA), [TEA]),
        ("POST", "/api/orders", _headers(TEA), [TEA[:5], TEA[5:]]),
        ("POST", "/api/orders", [JSON, (b"transfer-encoding", b"chunked")], [TEA[:9], TEA[9:]]),
        ("POST", "/api/orders", _headers(b"{}"), [b"{}"]),
        ("POST", "/api/orders", _headers(b"{"), [b"{"]),
        ("POST", "/api/orders", _headers(b"x" * 2_000), [b"x" * 2_000]),
        ("POST", "/api/orders", _headers(TEA, (b"content-type", b"text/plain")), [TEA]),
        ("POST", "/api/orders", _headers(TEA, (b"accept", b"*/*")), [TEA]),
        ("POST", "/api/orders", _headers(TEA, JSON, (b"idempotency-key", b"k")), [TEA]),
        ("POST", "/api/orders", _headers(TEA, JSON, (b"idempotency-key", b"")), [TEA]),
        ("POST", "/api/orders", _headers(TEA, JSON, (b"prefer", b"wait=1")), [TEA]),
        ("POST", "/api/orders", [JSON], []),
        ("PUT", "/api/orders", _headers(TEA), [TEA]),
        ("GET", f"/api/orders/{ID}", [], [b""]),
        ("HEAD", f"/api/orders/{ID}", [], [b""]),
        ("DELETE", f"/api/orders/{ID}", [], [b""]),
        ("GET", f"/api/orders/{str(ID).upper()}", [], [b""]),
        ("GET", f"/api/orders/{'x' * 36}", [], [b""]),
        ("GET", f"/api/orders/{'/' * 36}", [], [b""]),
        ("GET", "/api/orders/x", [], [b""]),
        ("GET", f"/api/orders/{str(ID)[:-7]}/status", [], [b""]),
    ],
)
async def test_hot_and_plain_answer_alike(
    error: Exception | None,
    method: str,
    path: str,
    headers: list[tuple[bytes, bytes]],
    parts: list[bytes],
) -> None:
    """Status, headers and body, and what reached the flow."""
    answers = []
    for hot in (False, True):
        flows = StubFlows()
        flows.error = error
        app = build_app(flows.as_flows(), LIMITS, clock=FakeClock(), stopping=asyncio.Event())
        if hot:
            app = HotRoutes(
                app,
                flows.as_flows().accept,
                flows.as_flows().reads,
                body_bytes_max=LIMITS.order_body_bytes_max,
            )
        answers.append((await _ask(app, method, path, headers, parts), flows.accepted))
    assert answers[0] == answers[1]
    assert len(answers[0][0]) == 2
