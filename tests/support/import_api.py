"""A small stand-in for the API's import and sales, with faults on demand: for `polyglot load`."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ImportApi(ThreadingHTTPServer):
    """Keeps what is imported; each planned fault is the fate of one import request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.orders: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.imports = 0
        self.hidden: set[str] = set()
        """Ids that the sales leave out."""
        self.lock = threading.Lock()
        self.arrived = threading.Event()
        """Set once there is an order."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sales(self) -> bytes:
        """Return the dashboard's answer."""
        orders: Counter[str] = Counter()
        revenue: dict[str, Decimal] = {}
        with self.lock:
            for order_id, order in self.orders.items():
                if order_id not in self.hidden:
                    day = order["created_at"][:10]
                    orders[day] += 1
                    revenue[day] = revenue.get(day, Decimal(0)) + order["amount"]
        days = [
            f'{{"date":"{day}","total_revenue":{revenue[day]},"orders":{orders[day]}}}'
            for day in orders
        ]
        return f"[{','.join(days)}]".encode()

    def store(self, body: bytes) -> bytes:
        """Store the lines and return the import's answer."""
        self.arrived.set()
        answer: dict[str, Any] = {"accepted": 0, "unchanged": 0, "rejected": 0, "errors": []}
        for number, line in enumerate(body.splitlines(), 1):
            order = json.loads(line, parse_float=Decimal)
            with self.lock:
                known = self.orders.setdefault(order["id"], order)
            if known is order:
                answer["accepted"] += 1
            elif known == order:
                answer["unchanged"] += 1
            else:
                answer["rejected"] += 1
                answer["errors"].append({"line": number, "detail": "other content"})
        return json.dumps(answer).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImportApi

    def do_GET(self) -> None:
        if self.path.startswith("/api/dashboard/sales"):
            self._answer(200, self.server.sales())
        else:
            self._answer(200 if self.path == "/health/live" else 404, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/admin/refresh":
            self._answer(200, b"{}")
            return
        self.server.imports += 1
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "cut":
            self.server.store(body)  # it arrived; only the answer is lost
            self.close_connection = True
        elif fault:
            self._answer(int(fault), b'{"title": "planned", "detail": "as planned"}')
        else:
            self._answer(200, self.server.store(body))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def import_api() -> Iterator[ImportApi]:
    """Run the stand-in while the context lasts."""
    api = ImportApi()
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.shutdown()
        api.server_close()
        thread.join()
