"""Traces by OpenTelemetry: off until `start`, and until then nothing here even imports it.

A request's span goes with its order into the batch. The batch's span is the child of the first
such request and has a link to each of the others, and they to it; so it is again with the messages
that a worker takes together, and with the batches that it indexes together. Between processes a
message's headers carry its publisher's span, in the form of W3C Trace Context.

Names are those of OpenTelemetry's semantic conventions. Nothing that a user wrote is in a span.

Invariant: while it is off, every function here is a comparison and a constant.
"""

from collections.abc import Mapping, Sequence
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias

from polyglot_persistence.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as RawSpan

Value: TypeAlias = str | int | float | bool
Kind: TypeAlias = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Origin: TypeAlias = Any
"""A span that something came from, for `batch_span`; opaque."""

SCOPE: Final = "polyglot_persistence"

LINKS_MAX: Final = 1_000
"""Links of a span; the SDK's own limit is 128, and a batch may be of more requests."""

FLUSH_SECONDS_MAX: Final = 3.0
"""For the last spans, when a process ends; its end does not wait for a collector that is away."""


class Span(Protocol):
    """Something that takes time, as a context."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes."""

    def failed(self, kind: str) -> None:
        """Mark it as failed; `kind` becomes `error.type`."""


class _Off:
    """Every span while tracing is off."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def set(self, attributes: Mapping[str, Value]) -> None: ...

    def failed(self, kind: str) -> None: ...


_OFF: Final = _Off()


class _Active:
    """A span that is current in its context, until it ends."""

    def __init__(self, tracing: "_Tracing", raw: "RawSpan") -> None:
        self._tracing = tracing
        self._raw = raw

    def __enter__(self) -> Self:
        here = self._tracing.trace.set_span_in_context(self._raw, self._tracing.nowhere)
        self._token = self._tracing.context.attach(here)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tracing.context.detach(self._token)
        if kind is not None:
            self.failed(kind.__qualname__)
        self._raw.end()

    def set(self, attributes: Mapping[str, Value]) -> None:
        self._raw.set_attributes(attributes)

    def failed(self, kind: str) -> None:
        # Without the error's text, which may quote what somebody wrote.
        self._raw.set_attribute("error.type", kind)
        self._raw.set_status(self._tracing.trace.StatusCode.ERROR)


class _Tracing:
    """OpenTelemetry, once it is imported."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import context, trace  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self.context = context
        self.trace = trace
        self.provider = provider
        self.tracer = provider.get_tracer(SCOPE)
        self.propagator = TraceContextTextMapPropagator()
        self.nowhere = context.Context()

    def span(
        self,
        name: str,
        kind: Kind,
        parent: "Context",
        attributes: Mapping[str, Value],
        links: "Sequence[RawSpan]" = (),
    ) -> _Active:
        raw = self.tracer.start_span(
            name,
            parent,
            self.trace.SpanKind[kind],
            attributes,
            [self.trace.Link(one.get_span_context()) for one in links],
        )
        return _Active(self, raw)

    def under(self, raw: "RawSpan") -> "Context":
        return self.trace.set_span_in_context(raw, self.nowhere)


_tracing: _Tracing | None = None


def start(service: str, version: str) -> None:
    """Begin to trace this process and to send its spans by OTLP over HTTP.

    Where to, how many and under which other names is for the standard `OTEL_*` variables, which
    the SDK reads.

    Raises:
        ConfigurationError: the SDK or its exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"traces need {error.name}: pip install 'polyglot-persistence[traces]'"
        ) from error
    resource = Resource.create()  # of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    resource = Resource({"service.version": version}).merge(resource)
    provider = TracerProvider(resource=resource, span_limits=SpanLimits(max_links=LINKS_MAX))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # Not for all: Elasticsearch's client would make a trace of every look at its store.
    use(provider)


def use(provider: "TracerProvider | None") -> None:
    """Make spans by this provider from now on; None: make none."""
    global _tracing  # noqa: PLW0603  one value, replaced whole
    _tracing = None if provider is None else _Tracing(provider)


def stop() -> None:
    """Send what is left, for `FLUSH_SECONDS_MAX` at most, and be off."""
    if _tracing is None:
        return
    flushing = Thread(target=_tracing.provider.shutdown, daemon=True)
    use(None)
    flushing.start()
    flushing.join(FLUSH_SECONDS_MAX)


def is_on() -> bool:
    """Whether this process traces."""
    return _tracing is not None


def current() -> Origin | None:
    """Return the span that is under way here, if it is one that will be exported.

    A task inherits the span of whoever started it, which may have ended since and does not count.
    """
    if _tracing is None:
        return None
    raw = _tracing.trace.get_current_span()
    return raw if raw.is_recording() else None


def trace_id() -> str:
    """Return the id of the current trace as 32 hexadecimal digits; empty if there is none."""
    raw = current()
    return "" if raw is None else format(raw.get_span_context().trace_id, "032x")


def log_fields() -> Mapping[str, str]:
    """Return what a log line says of the current span."""
    raw = current()
    if raw is None:
        return {}
    here = raw.get_span_context()
    return {
        "trace_id": format(here.trace_id, "032x"),
        "span_id": format(here.span_id, "016x"),
        "trace_flags": format(here.trace_flags, "02x"),
    }


def carrier() -> Mapping[str, str]:
    """Return the headers that tell another process of the current span."""
    headers: dict[str, str] = {}
    if _tracing is not None and current() is not None:
        _tracing.propagator.inject(headers)
    return headers


def origin(headers: Mapping[str, str]) -> Origin | None:
    """Return the span that `carrier` told of, if it was exported."""
    if _tracing is None or not headers:
        return None
    raw = _tracing.trace.get_current_span(_tracing.propagator.extract(headers, _tracing.nowhere))
    return raw if raw.get_span_context().trace_flags.sampled else None


def server_span(name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]) -> Span:
    """Return the span of a request that came with these headers."""
    if _tracing is None:
        return _OFF
    caller = _tracing.propagator.extract(headers, _tracing.nowhere)
    return _tracing.span(name, "SERVER", caller, attributes)


def child_span(name: str, kind: Kind, attributes: Mapping[str, Value]) -> Span:
    """Return a span below the current one; none if there is none that is under way."""
    raw = current()
    if _tracing is None or raw is None:
        return _OFF
    return _tracing.span(name, kind, _tracing.under(raw), attributes)


def batch_span(
    name: str,
    origins: Sequence[Origin | None],
    attributes: Mapping[str, Value],
    kind: Kind = "INTERNAL",
) -> Span:
    """Return the span of what is done for several origins at once; none if there are none.

    It is a child of the first, and linked with the others in both directions.
    """
    if _tracing is None:
        return _OFF
    spans: list[RawSpan] = [one for one in origins if one is not None]
    if not spans:
        return _OFF
    active = _tracing.span(name, kind, _tracing.under(spans[0]), attributes, spans[1:])
    for one in spans[1:]:
        if one.is_recording():
            one.add_link(active._raw.get_span_context())  # noqa: SLF001  its own class's
    return active
