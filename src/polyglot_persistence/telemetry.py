"""Every metric name and the form of every log line, in one place.

Names are by Prometheus's conventions: base units (seconds, bytes), `_total` for what only grows.
A counter's label that has few values has all of them from the start, at zero: `increase` does not
see the first step of a series that begins with it.

A log line has `component` (who), `action` (what, stable, to search by), then ids and figures.
Invariant: no order id, key or text of a user is a metric's label.
"""

import logging
import os
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, MutableMapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from platform import python_version
from typing import Any, Final, TextIO

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from polyglot_persistence import __version__, tracing

# A series of its own for when each of the others began would be read by nothing here.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY: Final = CollectorRegistry()

ProcessCollector(registry=REGISTRY)
"""`process_*`: memory, CPU time, descriptors and start time of this process (Linux)."""

STORES: Final = ("cache", "queue", "record", "search")
"""The roles that stores play, as labels."""

# Seconds. OpenTelemetry's boundaries for durations, with finer steps where this system lives.
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LAG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_STORE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class QuickHistogram(Collector):
    """A histogram that takes a third of the time of the library's own, or less for a batch.

    Every request is observed, and one that is answered from memory takes 6 us in all. Every order
    that a worker handles is, too: one by one, that would take a tenth of the worker's time.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._bounds = tuple(map(float, buckets))
        self._cells: dict[tuple[object, ...], list[float]] = {}
        """By the labels' values: how many in each bucket, and last the sum."""
        if not labels:
            self._cell(())
        registry.register(self)

    def observe(self, labels: tuple[object, ...], value: float) -> None:
        """Observe a value."""
        cell = self._cells.get(labels) or self._cell(labels)
        cell[bisect_left(self._bounds, value)] += 1
        cell[-1] += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Observe each of the values; for a histogram without labels."""
        ordered = sorted(values)  # then each bucket is a slice of them
        cell = self._cells[()]
        first = 0
        for number, bound in enumerate(self._bounds):
            last = bisect_right(ordered, bound, first)
            cell[number] += last - first
            first = last
        cell[-2] += len(ordered) - first
        cell[-1] += sum(ordered)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return the current histogram."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [*map(str, self._bounds), "+Inf"]
        for labels, cell in self._cells.items():
            buckets = list(zip(bounds, accumulate(cell[:-1]), strict=True))
            family.add_metric(list(map(str, labels)), buckets, cell[-1])
        yield family

    def _cell(self, labels: tuple[object, ...]) -> list[float]:
        cell = self._cells[labels] = [0] * (len(self._bounds) + 2)
        return cell


_counter = partial(Counter, registry=REGISTRY)
_gauge = partial(Gauge, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)
_quick_histogram = partial(QuickHistogram, registry=REGISTRY)

BUILD = Info("polyglot_build", "Version of this program and of its Python.", registry=REGISTRY)
BUILD.info({"version": __version__, "python": python_version()})

HTTP_REQUEST_SECONDS = _quick_histogram(
    "http_server_request_duration_seconds",
    "Time to answer a request.",
    ["http_request_method", "http_route", "http_response_status_code"],
    buckets=_FAST,
)
ACCEPTED = _counter("polyglot_orders_accepted", "Orders acknowledged as durable.")
ACCEPTED_ONE_COPY = _counter(
    "polyglot_orders_accepted_one_copy",
    "Orders acknowledged with one durable copy only, by the store that was missing.",
    ["missing"],
)
REFUSED = _counter("polyglot_orders_refused", "Orders refused, by reason.", ["reason"])
COMMIT_SECONDS = _histogram(
    "polyglot_commit_duration_seconds", "Time of one group commit.", buckets=_FAST
)
COMMIT_ORDERS = _histogram("polyglot_commit_orders", "Orders in one group commit.", buckets=_SIZE)
READS = _counter("polyglot_reads", "Orders read, by where they were found.", ["source"])
BACKLOG_ORDERS = _gauge("polyglot_dirty_orders", "Orders not yet persisted.")
BACKLOG_LIMIT_ORDERS = _gauge("polyglot_dirty_orders_limit", "DIRTY_ORDERS_MAX of this process.")
WAITING_ORDERS = _gauge("polyglot_waiting_orders", "Orders that wait for a group commit.")
BACKLOG_AGE_SECONDS = _gauge(
    "polyglot_dirty_oldest_age_seconds", "Age of the oldest order not yet persisted."
)
QUEUE_MESSAGES = _gauge("polyglot_queue_messages", "Messages that no worker holds.")
QUEUE_MEMBERS = _gauge(
    "polyglot_queue_members",
    "Nodes that hold the queue: those that run, and how many there should be.",
    ["kind"],
)
OUTBOX_ORDERS = _gauge("polyglot_outbox_orders", "Persisted orders not known to be searchable.")
OUTBOX_AGE_SECONDS = _gauge("polyglot_outbox_oldest_age_seconds", "Age of the oldest outbox row.")
PERSISTED = _counter("polyglot_orders_persisted", "Orders inserted into PostgreSQL.", ["source"])
PERSIST_SECONDS = _histogram(
    "polyglot_persist_duration_seconds", "Time of one persist transaction.", buckets=_FAST
)
PERSIST_ORDERS = _histogram(
    "polyglot_persist_orders", "Orders in one persist batch.", buckets=_SIZE
)
QUEUE_WAIT_SECONDS = _histogram(
    "polyglot_queue_wait_seconds",
    "From the acceptance of a message's oldest order to its delivery to a worker.",
    buckets=_LAG,
)
PERSIST_LAG_SECONDS = _quick_histogram(
    "polyglot_persist_lag_seconds", "From accepted to persisted.", buckets=_LAG
)
INDEXED = _counter("polyglot_orders_indexed", "Orders indexed for search.")
INDEX_SECONDS = _histogram(
    "polyglot_index_duration_seconds", "Time of one index batch.", buckets=_FAST
)
INDEX_LAG_SECONDS = _quick_histogram(
    "polyglot_index_lag_seconds", "From accepted to indexed.", buckets=_LAG
)
DEAD_LETTERED = _counter("polyglot_dead_letters", "Dead letters written, by stage.", ["stage"])
DEAD_LETTERS_WAITING = _gauge(
    "polyglot_dead_letters_waiting",
    "Dead letters neither replayed nor discarded; counted up to 10,000.",
)
DEAD_LETTERS_HANDLED = _counter(
    "polyglot_dead_letters_handled",
    "Dead letters that an operator replayed or discarded, by outcome.",
    ["outcome"],
)
STORE_CALL_SECONDS = _histogram(
    "polyglot_store_call_duration_seconds",
    "Time of a call to a store that succeeded, by the port's method.",
    ["store", "operation"],
    buckets=_STORE,
)
STORE_ERRORS = _counter(
    "polyglot_store_errors",
    "Calls to a store that failed: certainly without effect, or with an unknown outcome.",
    ["store", "outcome"],
)
RETRIES = _counter("polyglot_retries", "Pauses after a failure, before another attempt.", ["of"])
LOOP_SUCCESS = _gauge(
    "polyglot_loop_last_success_timestamp_seconds",
    "When a loop's step last succeeded; of a loop with one leader, in the process that leads.",
    ["loop"],
)
DRIFT_FOUND = _counter("polyglot_audit_drift_found", "Where stores differed, by kind.", ["kind"])
DRIFT_REPAIRED = _counter("polyglot_audit_drift_repaired", "Of these, repaired, by kind.", ["kind"])
RECORD_CHANGES = _counter(
    "polyglot_record_changes",
    "Failovers and restores of PostgreSQL after which all cached orders were compared with it.",
)
AUDITED = _counter("polyglot_audit_orders", "Orders that an audit compared over all stores.")
AUDIT_SECONDS = _gauge("polyglot_audit_duration_seconds", "Time of the last audit of everything.")
ORDERS_CONSISTENT = _counter(
    "polyglot_orders_consistent",
    "Orders that were in every store within so many seconds of acceptance; inf: at all.",
    ["within"],
)
FRESHNESS_NINES = _gauge(
    "polyglot_freshness_nines",
    "Share of the last day's orders that were in every store in time: 2 is 99 %, 3 is 99.9 %.",
    ["within"],
)
API_KEYS_FAULTS = _gauge(
    "polyglot_api_keys_file_faults",
    "Entries of API_KEYS_FILE that cannot be read, and so are no keys; 1 if the file cannot.",
)
STORE_UP = _gauge("polyglot_store_up", "Whether a store answered when last asked.", ["store"])
CACHE_COLD = _gauge("polyglot_cache_cold", "1 while the cache may miss accepted orders.")
VIEW_AGE_SECONDS = _gauge("polyglot_sales_view_age_seconds", "Age of daily_sales_mv.")
DB_QUERY_SECONDS = _histogram(
    "db_query_duration_seconds",
    "Time of a database query.",
    ["operation"],
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)
"""The Go peer's name and buckets, kept so that its dashboards go on working."""

for _store in STORES:
    for _outcome in ("no_effect", "unknown"):
        STORE_ERRORS.labels(_store, _outcome)
for _counted, _values in (
    (ACCEPTED_ONE_COPY, "cache queue"),
    (REFUSED, "watermark waiting unavailable unknown"),
    (PERSISTED, "queue sweep replay audit"),
    (ORDERS_CONSISTENT, "1 5 60 inf"),
    (DEAD_LETTERED, "decode persist index"),
    (DEAD_LETTERS_HANDLED, "persisted reindexed discarded kept"),
):
    for _value in _values.split():
        _counted.labels(_value)


class ComponentLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs `action` with fields: `log.info("order_accepted", order_id=...)`."""

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        """Gather every keyword that is not logging's own into the line's fields."""
        own = {k: kwargs.pop(k) for k in ("exc_info", "stack_info", "stacklevel") if k in kwargs}
        return msg, {**own, "extra": {"fields": {**(self.extra or {}), **kwargs}}}


def logger(component: str) -> ComponentLogger:
    """Return the logger of one component; the message of each call is its action."""
    return ComponentLogger(logging.getLogger(f"polyglot.{component}"), {"component": component})


class JsonFormatter(logging.Formatter):
    """One JSON object per line; user input stays inside a JSON string, escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return _inert(_encoder.encode(_line(self, record)).decode())


class TerminalFormatter(logging.Formatter):
    """The same fields as readable text.

    Lines of a traceback are indented, so that none of them can pass for a line of the log.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = _line(self, record)
        head = f"{line.pop('time')[11:23]} {line.pop('level'):<7} {line.pop('component'):<9}"
        action = line.pop("action")
        error = line.pop("exception", None)
        rest = " ".join(f"{key}={_encoder.encode(value).decode()}" for key, value in line.items())
        first = _inert(f"{head} {action} {rest}".rstrip())
        return "\n    ".join([first, *map(_inert, error.split("\n"))] if error else [first])


_encoder = msgspec.json.Encoder(enc_hook=str)

# C0 but for the tab, DEL, C1, line separators, and what turns the direction of text: a terminal
# obeys them. A lone surrogate cannot be written at all.
_LIVE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _inert(text: str) -> str:
    """Return the line with characters that control a terminal escaped as in JSON."""
    return _LIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _line(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    line = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "component": fields.get("component", record.name),
        "action": record.getMessage(),
        **tracing.log_fields(),
        **{key: value for key, value in fields.items() if key != "component"},
    }
    if record.exc_info:
        line["exception"] = formatter.formatException(record.exc_info)
    return line


def set_up_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (stderr): `form` is json, text or auto.

    `auto` is text on a terminal and JSON elsewhere.
    """
    stream = stream or sys.stderr
    text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TerminalFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(noisy).handlers.clear()
        logging.getLogger(noisy).propagate = True
    # One line a request, and the client is asked for every batch.
    logging.getLogger("elastic_transport").setLevel(logging.WARNING)


def drop_stdout() -> None:
    """Redirect an unwritable standard output (full disk, closed pipe) to the null device.

    Otherwise the interpreter would try to flush it again when it ends.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
