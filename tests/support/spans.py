"""Spans as tests see them: kept in memory, by name."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from polyglot_persistence import tracing


class Spans:
    """What was exported so far."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        """Return every span that ended, in the order of their ends."""
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name."""
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        (span,) = self.named(name)
        return span


def id_of(span: ReadableSpan) -> int:
    """Return the span's id."""
    context = span.get_span_context()
    assert context is not None
    return int(context.span_id)


def parent_of(span: ReadableSpan) -> int | None:
    """Return the id of the span's parent."""
    return None if span.parent is None else int(span.parent.span_id)


def links_of(span: ReadableSpan) -> set[int]:
    """Return the ids of the spans that it is linked with."""
    return {link.context.span_id for link in span.links}


@contextmanager
def traced() -> Iterator[Spans]:
    """Trace into memory for a while."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    try:
        yield Spans(exporter)
    finally:
        tracing.use(None)
        provider.shutdown()
