"""`polyglot demo`: its orders, and that each is sent until it is accepted."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from polyglot_persistence.cli.demonstration import demo
from polyglot_persistence.cli.demonstration.demo import Demo
from polyglot_persistence.domain.order import parse_amount, parse_name
from polyglot_persistence.errors import ConfigurationError
from tests.support.processes import eventually


class _Api(ThreadingHTTPServer):
    """Keeps orders by their key; each planned status is the fate of one request, 0 hangs up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: list[int] = []
        self.orders: dict[str, Any] = {}
        self.requests = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Api

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests += 1
            status = self.server.plan.pop(0) if self.server.plan else 202
            if status in (0, 202, 504):  # in two of them the client does not hear that it is there
                self.server.orders.setdefault(self.headers["Idempotency-Key"], order)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[_Api]:
    with _Api() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody has who has just installed it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(demo, "RETRY_PAUSE_SECONDS_MIN", 0.001)


def _demo() -> Demo:
    return Demo(rate=1_000, data_dir=Path(".demo"), opens_page=False)


def _url(api: _Api) -> str:
    return f"http://127.0.0.1:{api.server_address[1]}"


async def test_each_order_is_sent_until_it_is_accepted(
    api: _Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused, cut, or without an answer: it comes again under its key, and is there once."""
    api.plan = [503, 504, 0, 429, 500] * 4
    shown = _demo()
    running = asyncio.create_task(shown.show(_url(api)))
    await eventually(lambda: shown.tally.accepted >= 150, what="150 orders")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    in_flight = demo.CONNECTIONS
    assert 0 <= len(api.orders) - shown.tally.accepted <= in_flight
    # The connection is made anew by itself: not every hanging up is a retry that is seen.
    assert shown.tally.retries >= 16
    assert 0 <= api.requests - shown.tally.accepted - shown.tally.retries <= in_flight
    names = {order["product_name"] for order in api.orders.values()}
    assert len(names) == 120
    guide = capsys.readouterr().out
    assert "from a sample of 120 real ones (`make datasets` brings 1,469,307)" in guide
    assert "kill -9 $(cat .demo/worker.lock)" in guide


async def test_an_api_that_refuses_ends_it(api: _Api) -> None:
    """An order that the API never takes would come for ever."""
    api.plan = [401] * 1_000
    with pytest.raises(ConfigurationError, match="the API refuses the orders: 401"):
        await _demo().show(_url(api))


def test_the_sample_is_orders_that_the_api_takes() -> None:
    """Names and amounts of real products, the amounts exact."""
    orders = list(demo._built_in())
    assert len(orders) == 120
    for order in orders:
        assert parse_name(order.product_name, "") == order.product_name
        assert str(parse_amount(order.amount, "")) == order.amount


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
    ],
)
def test_a_browser_needs_a_window(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: bool
) -> None:
    """One that opens in the terminal would be in the way of what is told there."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert demo._has_display() is expected
