"""OpenTelemetry traces, with the extra `tracing` and a configured collector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from moulin.errors import OptionsError
from moulin.extras import install_hint

Attributes = Mapping[str, str | int | float]


class Span(Protocol):
    """An open span, to which attributes can be added."""

    def set_attribute(self, key: str, value: str | int | float) -> None: ...


class Tracing(Protocol):
    """Opens spans, each nested in the current span of its task."""

    def request(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> AbstractContextManager[Span]:
        """The span of one request; it continues the trace of a `traceparent` in `headers`."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]: ...

    def close(self) -> None:
        """Send all pending spans."""


class _Nothing:
    """A span that is not recorded."""

    def set_attribute(self, key: str, value: str | int | float) -> None: ...


class NoTracing:
    """Tracing that records nothing."""

    def request(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> AbstractContextManager[Span]:
        del name, headers, attributes
        return nullcontext(_Nothing())

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        del name, attributes
        return nullcontext(_Nothing())

    def close(self) -> None: ...


def open_tracing(endpoint: str | None) -> Tracing:
    """Tracing to an OTLP collector over HTTP, for example http://localhost:4318/v1/traces; without one, no tracing.

    Raises OptionsError where OpenTelemetry is not installed.
    """
    if endpoint is None:
        return NoTracing()
    try:
        from opentelemetry import propagate
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind
    except ModuleNotFoundError as error:
        raise OptionsError(f"Traces need {error.name}, which is not installed", hint=install_hint("tracing")) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "moulin-gateway"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    tracer = provider.get_tracer("moulin.gateway")

    @contextmanager
    def request(name: str, headers: Mapping[str, str], attributes: Attributes) -> Iterator[Span]:
        around = propagate.extract(headers)
        with tracer.start_as_current_span(name, around, SpanKind.SERVER, attributes) as span:
            yield span

    @contextmanager
    def inner(name: str, attributes: Attributes) -> Iterator[Span]:
        with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
            yield span

    return _OpenTelemetry(request, inner, provider.shutdown)


class _OpenTelemetry:
    def __init__(
        self,
        request: Callable[[str, Mapping[str, str], Attributes], AbstractContextManager[Span]],
        span: Callable[[str, Attributes], AbstractContextManager[Span]],
        close: Callable[[], None],
    ) -> None:
        self.request, self.span, self.close = request, span, close
