"""A real API and worker send one trace to a collector, whichever way an order takes."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import eventually, polyglot_up
from tests.support.servers import short_directory

pytestmark = pytest.mark.timeout(120)

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALLER_TRACE = CALLER.split("-")[1]
NAMES = {
    ("polyglot-api", "POST /api/orders"),
    ("polyglot-api", "commit orders"),
    ("polyglot-api", "accept redis"),
    ("polyglot-api", "publish order_queue"),
    ("polyglot-worker", "process order_queue"),
    ("polyglot-worker", "persist postgresql"),
    ("polyglot-worker", "settle redis"),
    ("polyglot-worker", "index orders"),
    ("polyglot-worker", "index tantivy"),
}


class Received(NamedTuple):
    """A span as the collector got it."""

    service: str
    name: str
    trace_id: str


class Collector:
    """As much of an OpenTelemetry collector as a test needs: OTLP over HTTP, in protobuf."""

    def __init__(self) -> None:
        self.spans: list[Received] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.spans += [
                Received(attributes["service.name"], span.name, span.trace_id.hex())
                for scope in resource.scope_spans
                for span in scope.spans
            ]


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_one_trace_over_both_processes() -> None:
    """The caller's trace holds request, batch, queue, record and index; a problem names it."""
    with collecting() as (collector, url), short_directory() as directory:
        environment = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        async with polyglot_up(directory / ".data", environment=environment) as up:
            headers = {"traceparent": CALLER}
            order = {"product_name": "Tea", "amount": 1}
            answer = await up.request("POST", "/api/orders", order, headers)
            assert answer.status == 202

            def seen() -> set[tuple[str, str]]:
                return {(x.service, x.name) for x in collector.spans if x.trace_id == CALLER_TRACE}

            await eventually(lambda: seen() >= NAMES, 30, f"the trace {NAMES}")
            problem = await up.request("POST", "/api/orders", {"amount": 1}, headers)
            assert problem.json["trace_id"] == CALLER_TRACE


async def test_a_collector_that_is_away_holds_nothing_up() -> None:
    """Orders are accepted and persisted, and the processes end in order and in time."""
    with short_directory() as directory:
        environment = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        }
        async with polyglot_up(directory / ".data", environment=environment) as up:
            ids = await asyncio.gather(*[up.order() for _ in range(20)])
            for order_id in ids:
                await up.persisted(order_id)
        assert up.process.code == 0
