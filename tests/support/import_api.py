"""A small stand-in for the API's import and sales, with faults on demand: for `polyglot load`."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class ImportApi(ThreadingHTTPServer):
    """Keeps what is imported; each planned fault is the fate of one import request.

    A fault is a status, `cut` (the answer is lost), or a status with what the import had done
    until then: `503 in part` refuses every third of the lines that it reads, and reads a half.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.orders: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.imports = 0
        self.lines = 0
        """Lines that came, blank ones not counted."""
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

    def store(self, body: bytes, first_line: int = 1) -> bytes:
        """Store the lines and return the import's answer."""
        return json.dumps(self._store(list(enumerate(body.splitlines(), first_line)))).encode()

    def store_in_part(self, body: bytes, first_line: int, status: int) -> bytes:
        """Store some of the lines and return the problem that ends the import."""
        lines = list(enumerate(body.splitlines(), first_line))
        read = lines[: max(1, len(lines) // 2)]
        refused = [number for number, line in read[::3] if line]
        done = self._store([(number, line) for number, line in read if number not in refused])
        problem = {
            "title": "planned",
            "status": status,
            "detail": "as planned",
            "lines_rejected": done.pop("errors"),
            "lines_read": read[-1][0],
            "lines_not_accepted": refused,
            "first_line_not_accepted": min([*refused, read[-1][0] + 1]),
            **done,
        }
        return json.dumps(problem).encode()

    def _store(self, lines: list[tuple[int, bytes]]) -> dict[str, Any]:
        self.arrived.set()
        answer: dict[str, Any] = {"accepted": 0, "unchanged": 0, "rejected": 0, "errors": []}
        for number, line in lines:
            if not line:
                continue
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
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImportApi

    def do_GET(self) -> None:
        if self.path.startswith("/api/dashboard/sales"):
            self._answer(200, self.server.sales())
        else:
            found = self.path.removeprefix("/api/orders/") in self.server.orders
            self._answer(200 if found or self.path == "/health/live" else 404, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/admin/refresh":
            self._answer(200, b"{}")
            return
        first_line = int(parse_qs(urlsplit(self.path).query).get("first_line", ["1"])[0])
        with self.server.lock:
            self.server.imports += 1
            self.server.lines += sum(1 for line in body.splitlines() if line)
            fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "cut":
            self.server.store(body)  # it arrived; only the answer is lost
            self.close_connection = True
        elif fault.endswith(" in part"):
            status = int(fault.split()[0])
            self._answer(status, self.server.store_in_part(body, first_line, status))
        elif fault:
            self._answer(int(fault), b'{"title": "planned", "detail": "as planned"}')
        else:
            self._answer(200, self.server.store(body, first_line))

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
