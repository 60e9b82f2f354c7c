"""Traces: one from a request to its index batch, linked across batches; nothing while off."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from polyglot_persistence import tracing
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.adapters.rabbitmq import messages
from polyglot_persistence.adapters.rabbitmq.channel import Content
from polyglot_persistence.adapters.rabbitmq.frames import Properties
from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue
from polyglot_persistence.adapters.redis.cache import RedisCache
from polyglot_persistence.adapters.tantivy.index import TantivyIndex
from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue
from polyglot_persistence.api.app import build_app
from polyglot_persistence.bootstrap.observed import _system, measured
from polyglot_persistence.config.limits import CommitLimits, PersisterLimits
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.order import AcceptedOrder, Order, new_id
from polyglot_persistence.errors import ConfigurationError, UnavailableError
from polyglot_persistence.flows.behind.index import IndexFlow
from polyglot_persistence.flows.behind.persist import PersistFlow, ToIndex
from polyglot_persistence.flows.behind.sweep import QueueProgress
from polyglot_persistence.flows.intake.group_commit import GroupCommit
from polyglot_persistence.flows.intake.reigns import Reigns
from polyglot_persistence.flows.reading.cold_cache import ColdMark
from polyglot_persistence.ports.cache import PreparedOrder, Unit
from polyglot_persistence.ports.queue import Delivery, Message
from polyglot_persistence.runtime.breaker import Breaker
from polyglot_persistence.telemetry import JsonFormatter, logger
from polyglot_persistence.worker.persister import Persister
from tests.simulation.stores.search import SearchEngineServer, SimulatedSearch
from tests.support.scripted import FakeClock, ScriptedCache, ScriptedQueue
from tests.support.spans import Spans, id_of, links_of, parent_of, traced
from tests.support.stub_flows import LIMITS, OPEN, StubFlows
from tests.support.visible_record import VisibleRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALLER_TRACE = CALLER.split("-")[1]
NOT_SAMPLED = CALLER[:-1] + "0"
OFF = """
import sys
from polyglot_persistence.bootstrap import api, worker
from polyglot_persistence import tracing
with tracing.batch_span("x", [tracing.current()], {}), tracing.child_span("y", "CLIENT", {}):
    assert (tracing.carrier(), tracing.trace_id(), tracing.log_fields()) == ({}, "", {})
assert not tracing.is_on()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


@pytest.fixture
def spans() -> Iterator[Spans]:
    with traced() as kept:
        yield kept


def test_nothing_is_imported_while_it_is_off() -> None:
    """API and worker know nothing of OpenTelemetry unless they are told to trace."""
    ran = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the extra, and not a traceback of an import."""
    missing = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'polyglot-persistence\[traces\]'"):
        tracing.start("polyglot-api", "1")
    assert not tracing.is_on()


# --- requests --------------------------------------------------------------------------------


def client_of(flows: StubFlows) -> httpx2.AsyncClient:
    app = build_app(
        flows.as_flows(), LIMITS, clock=FakeClock(), stopping=asyncio.Event(), access=OPEN
    )
    transport = httpx2.ASGITransport(app)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


async def test_a_request_is_a_span_below_its_caller(spans: Spans) -> None:
    """By the semantic conventions, named by the route's template, without the caller's text."""
    async with client_of(StubFlows()) as client:
        headers = {"traceparent": CALLER, "x-of-the-caller": "secret"}
        await client.get(f"/api/orders/{new_id()}", headers=headers)
    span = spans.one("GET /api/orders/{id}")
    assert span.kind is SpanKind.SERVER
    assert span.parent is not None
    assert format(span.parent.trace_id, "032x") == CALLER_TRACE
    assert span.attributes is not None
    assert span.attributes["http.request.method"] == "GET"
    assert span.attributes["http.route"] == "/api/orders/{id}"
    assert span.attributes["http.response.status_code"] == 200
    assert "secret" not in str(span.to_json())


async def test_a_caller_that_is_not_sampled_makes_no_spans(spans: Spans) -> None:
    """Its decision counts, so that a trace is whole or not there."""
    async with client_of(StubFlows()) as client:
        await client.get(f"/api/orders/{new_id()}", headers={"traceparent": NOT_SAMPLED})
    assert spans.all() == []


async def test_a_problem_names_its_trace(spans: Spans) -> None:
    """What a client reports leads to the trace; a 5xx marks its span, a 4xx does not."""
    flows = StubFlows()
    async with client_of(flows) as client:
        headers = {"traceparent": CALLER}
        invalid = await client.post("/api/orders", json={"amount": 1}, headers=headers)
        flows.error = UnavailableError("away")
        away = await client.post(
            "/api/orders", json={"product_name": "Tea", "amount": 1}, headers=headers
        )
    assert (invalid.status_code, away.status_code) == (422, 503)
    assert invalid.json()["trace_id"] == away.json()["trace_id"] == CALLER_TRACE
    first, second = spans.named("POST /api/orders")
    assert first.status.is_unset
    assert not second.status.is_ok
    assert second.attributes is not None
    assert second.attributes["error.type"] == "503"


async def test_a_problem_without_a_trace_does_not_name_one() -> None:
    """The field is not there at all while tracing is off."""
    async with client_of(StubFlows()) as client:
        answer = await client.post("/api/orders", json={"amount": 1})
    assert "trace_id" not in answer.json()


def test_log_lines_name_their_trace(spans: Spans) -> None:
    """With the names of OpenTelemetry's form for logs that are not sent by it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("polyglot.traced")
    log.addHandler(handler)
    try:
        with tracing.server_span("x", {"traceparent": CALLER}, {}):
            logger("traced").warning("looked", orders=1)
        logger("traced").warning("looked")
    finally:
        log.removeHandler(handler)
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert inside["trace_id"] == CALLER_TRACE
    assert inside["span_id"] == format(id_of(spans.one("x")), "016x")
    assert inside["trace_flags"] == "01"
    assert "trace_id" not in outside


# --- from the batch to the index -------------------------------------------------------------


class Consumer:
    """Hands out deliveries once; then stops the loop."""

    def __init__(self, deliveries: Sequence[Delivery], stop: asyncio.Event) -> None:
        self._waiting = list(deliveries)
        self._stop = stop

    async def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        taken, self._waiting = self._waiting, []
        if not taken:
            self._stop.set()
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None: ...


class System:
    """Write path and worker over scripted stores, as the composition root builds them."""

    def __init__(self) -> None:
        self.queue = ScriptedQueue()
        self.clock = FakeClock()
        self.record = VisibleRecord(self.clock)
        engine = SearchEngineServer(self.clock)
        engine.create("current")
        cache = cast("Any", measured("cache", ScriptedCache()))
        store = cast("Any", measured("record", self.record))
        cold_mark = ColdMark(store, self.clock)
        self.commit = GroupCommit(
            cache,
            cast("Any", measured("queue", self.queue)),
            cache_breaker=Breaker("cache", self._ping),
            queue_breaker=Breaker("queue", self._ping),
            cold_mark=cold_mark,
            reigns=Reigns(cache, cold_mark, self.clock),
            clock=self.clock,
            limits=CommitLimits(100, 1000, 1000, queue_messages_max=100),
        )
        self.to_index: list[ToIndex] = []
        self.persister = Persister(
            PersistFlow(store, cache, self.clock),
            queue=cast("Any", self.queue),
            record=store,
            end_warming=cache.end_warming,
            offer=self.to_index.extend,
            progress=QueueProgress(),
            clock=self.clock,
            limits=PersisterLimits(100, 1000, 10.0),
        )
        self.indexing = IndexFlow(
            store, cast("Any", measured("search", SimulatedSearch(engine))), self.clock
        )

    async def _ping(self) -> None: ...

    async def request(self) -> UUID:
        """Accept one order, as a request of its own."""
        order = Order(new_id(), "Tea", Decimal("1.00"), NOW)
        member = PreparedOrder(AcceptedOrder(order, NOW, order.id), codec.encode_order(order))
        with tracing.server_span("request", {}, {}):
            await self.commit.submit(Unit([member]), has_identity=False)
        return order.id

    async def work(self) -> None:
        """Persist and index everything that was published."""
        deliveries = [
            Delivery(n, m.body, m.orders, m.accepted_at, m.schema, 0, m.trace)
            for n, m in enumerate(self.queue.published)
        ]
        stop = asyncio.Event()
        await self.persister._receive(cast("Any", Consumer(deliveries, stop)), stop)
        await self.indexing.index(self.to_index)


async def test_a_batch_is_linked_with_each_of_its_requests(spans: Spans) -> None:
    """Child of the first, linked with the others, and they with it."""
    system = System()
    await asyncio.gather(*[system.request() for _ in range(3)])
    batch = spans.one("commit orders")
    first, *others = sorted(spans.named("request"), key=lambda span: span.start_time or 0)
    assert parent_of(batch) == id_of(first)
    assert links_of(batch) == {id_of(span) for span in others}
    assert [links_of(span) for span in (first, *others)] == [set(), {id_of(batch)}, {id_of(batch)}]
    assert batch.attributes == {"polyglot.batch.units": 3}


async def test_one_trace_leads_from_the_request_to_the_index(spans: Spans) -> None:
    """Through cache, queue, record and search, each call a span below what made it."""
    system = System()
    await system.request()
    await system.work()
    tree = {span.name: parent_of(span) for span in spans.all()}
    commit, process, index = (
        id_of(spans.one(name)) for name in ("commit orders", "process order_queue", "index orders")
    )
    assert tree == {
        "request": None,
        "commit orders": id_of(spans.one("request")),
        "accept support": commit,
        "read support": commit,  # the first one of a reign
        "publish order_queue": commit,
        "process order_queue": id_of(spans.one("publish order_queue")),
        "persist support": process,
        "settle support": process,
        "index orders": process,
        "index stores": index,
        "outbox_done support": index,
    }
    assert spans.one("publish order_queue").kind is SpanKind.PRODUCER
    assert spans.one("process order_queue").kind is SpanKind.CONSUMER
    assert spans.one("persist support").kind is SpanKind.CLIENT
    assert len({span.context.trace_id for span in spans.all() if span.context}) == 1


async def test_a_worker_links_the_messages_that_it_takes_together(spans: Spans) -> None:
    """Two messages in one transaction: child of the first, linked with the second."""
    system = System()
    await system.request()
    await system.request()
    await system.work()
    process = spans.one("process order_queue")
    first, second = spans.named("publish order_queue")
    assert parent_of(process) == id_of(first)
    assert links_of(process) == {id_of(second)}


async def test_untraced_requests_make_no_batch_span(spans: Spans) -> None:
    """What nobody asked to be traced is not, down to the message's headers."""
    system = System()
    with trace.use_span(trace.INVALID_SPAN):
        order = Order(new_id(), "Tea", Decimal("1.00"), NOW)
        member = PreparedOrder(AcceptedOrder(order, NOW, order.id), codec.encode_order(order))
        await system.commit.submit(Unit([member]), has_identity=False)
    await system.work()
    assert spans.all() == []
    assert [message.trace for message in system.queue.published] == [{}]


@pytest.mark.parametrize(
    ("adapter", "system"),
    [
        (PostgresRecord, "postgresql"),
        (RedisCache, "redis"),
        (RabbitMQQueue, "rabbitmq"),
        (ValkeyStreamsQueue, "valkey"),
        (ElasticsearchIndex, "elasticsearch"),
        (TantivyIndex, "tantivy"),
    ],
)
def test_systems_have_their_own_names(adapter: type, system: str) -> None:
    """As the semantic conventions call them, where they know them."""
    assert _system(object.__new__(adapter)) == system


# --- in a message ----------------------------------------------------------------------------


def test_a_trace_travels_in_headers_only() -> None:
    """The body, of which the schema is, is the same; what is no text is not taken for a trace."""
    sent = Message(b"[]", 1, NOW, codec.SCHEMA_VERSION, {"traceparent": CALLER})
    headers = messages.properties_of(sent, 1).headers
    assert headers is not None
    for header, expected in ((CALLER, {"traceparent": CALLER}), (7, {})):
        properties = Properties(headers=cast("Any", {**headers, "traceparent": header}))
        content = Content(cast("Any", None), properties, sent.body)
        assert messages.delivery_of(content, None, redelivered=False).trace == expected


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-01", NOT_SAMPLED])
def test_a_header_that_is_no_trace_has_no_effect(spans: Spans, header: str) -> None:
    """Anybody may write into a queue."""
    origin = tracing.origin({"traceparent": header})
    with tracing.batch_span("process", [origin], {}):
        assert tracing.trace_id() == ""
    assert spans.all() == []
