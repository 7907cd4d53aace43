"""OpenTelemetry traces, where the extra `tracing` is installed and a collector is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from moulin.errors import OptionsError
from moulin.extras import install_hint

Attributes = Mapping[str, str | int | float]


class Span(Protocol):
    """What may be added to a span while it lasts."""

    def set_attribute(self, key: str, value: str | int | float) -> None: ...


class Tracing(Protocol):
    """Spans of the task that opens them, each inside the one around it."""

    def request(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> AbstractContextManager[Span]:
        """The span of one request; it continues the trace that a `traceparent` among `headers` names."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]: ...

    def close(self) -> None:
        """Send what has not been sent."""


class _Nothing:
    """A span that nobody sees."""

    def set_attribute(self, key: str, value: str | int | float) -> None: ...


class NoTracing:
    """Costs nothing and says nothing."""

    def request(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> AbstractContextManager[Span]:
        del name, headers, attributes
        return nullcontext(_Nothing())

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        del name, attributes
        return nullcontext(_Nothing())

    def close(self) -> None: ...


def open_tracing(endpoint: str | None) -> Tracing:
    """Spans to an OTLP collector over HTTP, such as http://localhost:4318/v1/traces; without one, none.

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
