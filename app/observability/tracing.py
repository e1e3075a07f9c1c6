"""OpenTelemetry spans of what happens to executions. Needs the extra `[otel]`; made by `telemetry.py`.

One trace goes from the request to the attempts: request → `enqueue` (PRODUCER) → column `trace_context` →
`execute` (CONSUMER), once an attempt, on whichever node → `step`. A batch of fires is a trace of its own, begun by
`fire`.
Names and attributes follow the semantic conventions for messaging; what is ours begins with `contenthub.`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from app.core.redaction import redact_text
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.context import find_current_execution
from app.services.scheduler_service import describe_error

_W3C = TraceContextTextMapPropagator()
_ENQUEUE: dict[str, AttributeValue] = {
    "messaging.system": "contenthub",
    "messaging.operation.name": "enqueue",
    "messaging.operation.type": "send",
}
_FIRE: dict[str, AttributeValue] = {
    "messaging.system": "contenthub",
    "messaging.operation.name": "fire",
    "messaging.operation.type": "create",
}
_EXECUTE: dict[str, AttributeValue] = {
    "messaging.system": "contenthub",
    "messaging.operation.name": "execute",
    "messaging.operation.type": "process",
}
_FAULTS = (ExecutionState.FAILED, ExecutionState.RETRYING, ExecutionState.PARKED)
"""An attempt that leads here went wrong; cancelled, handed back and suspended ones did not."""


class OtelTracer:
    """See `app.scheduler.telemetry.Tracer`."""

    def __init__(self, version: str) -> None:
        self._tracer = trace.get_tracer("contenthub.scheduler", version)

    def enqueue(self, task_type: str) -> OtelOrigin:
        attributes = _ENQUEUE | {"messaging.destination.name": task_type}
        return OtelOrigin(self._tracer, f"enqueue {task_type}", attributes, contexts.get_current())

    def fire(self) -> OtelOrigin:
        return OtelOrigin(self._tracer, "fire", _FIRE, Context())

    def attempt(self, execution: Execution, number: int, node: str) -> OtelAttempt:
        # Its own trace or a new one; never that of whoever happened to put it on its lane.
        parent = Context()
        if execution.trace_context is not None:
            parent = _W3C.extract({"traceparent": execution.trace_context}, context=parent)
        known = _EXECUTE | {"messaging.destination.name": execution.task_type}  # what a sampler may look at
        span = self._tracer.start_span(f"execute {execution.task_type}", parent, SpanKind.CONSUMER, known)
        if span.is_recording():
            span.set_attributes(_identity_of(execution))
            span.set_attributes(
                {
                    "contenthub.executor.type": execution.task_type,
                    "contenthub.attempt.number": number,
                    "contenthub.node.id": node,
                }
            )
        contexts.attach(trace.set_span_in_context(span, parent))
        return OtelAttempt(span, execution)

    @contextmanager
    def step(self, name: str) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            f"step {name}",
            attributes={"contenthub.step.name": name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                execution = find_current_execution()
                params = execution.params if execution is not None else {}
                _note_error(span, redact_text(describe_error(error), params))
                raise

    def ids(self) -> Mapping[str, str]:
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return {}
        return {"trace_id": trace.format_trace_id(found.trace_id), "span_id": trace.format_span_id(found.span_id)}

    def outgoing(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        _W3C.inject(headers)
        return headers


class OtelOrigin:
    """See `app.scheduler.telemetry.Origin`. Its span begins when the first execution asks for its context, so a
    turn of the clock that fires nothing has none. The journal's thread may ask: hence the explicit parent."""

    def __init__(
        self, tracer: trace.Tracer, name: str, attributes: dict[str, AttributeValue], parent: Context
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._parent = parent
        self._began = time.time_ns()
        self._span: Span | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None:
            if isinstance(error, Exception):
                _note_error(self._span, describe_error(error))
            self._span.end()

    def trace_context(self) -> str | None:
        if self._span is None:
            self._span = self._tracer.start_span(
                self._name, self._parent, SpanKind.PRODUCER, self._attributes, start_time=self._began
            )
        of = self._span.get_span_context()
        trace_id, span_id = trace.format_trace_id(of.trace_id), trace.format_span_id(of.span_id)
        return f"00-{trace_id}-{span_id}-{of.trace_flags:02x}"

    def recorded(self, executions: Sequence[Execution]) -> None:
        if self._span is None or not self._span.is_recording():
            return
        if len(executions) == 1:
            self._span.set_attributes(_identity_of(executions[0]))
        else:
            self._span.set_attribute("messaging.batch.message_count", len(executions))


class OtelAttempt:
    """The span of one attempt; the executor's own spans are inside it."""

    def __init__(self, span: Span, execution: Execution) -> None:
        self._span = span
        self._execution = execution
        self._lock = threading.Lock()

    def decided(self, state: ExecutionState, reason: str | None, error: str | None, stack: str | None) -> None:
        span = self._span
        span.set_attribute("contenthub.execution.state", state.value)
        if reason is not None:
            span.set_attribute("contenthub.execution.reason", reason)
        if state in _FAULTS:
            params = self._execution.params
            said = redact_text(error or state.value, params)
            _note_error(span, said, stack and redact_text(stack, params))

    def close(self) -> None:
        with self._lock:
            if self._span.is_recording():
                self._span.end()


def _identity_of(execution: Execution) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "messaging.message.id": str(execution.id),
        "contenthub.execution.id": execution.id,
        "contenthub.execution.trigger": execution.trigger,
    }
    if execution.task_id is not None:
        attributes["contenthub.task.id"] = execution.task_id
    if execution.task_name is not None:
        attributes["contenthub.task.name"] = execution.task_name
    return attributes


def _note_error(span: Span, error: str, stack: str | None = None) -> None:
    """The error as status and as the event that the conventions define, from its `TypeName: message`."""
    name, _, message = error.partition(": ")
    error_type = name if name.replace(".", "").isidentifier() else "_OTHER"
    span.set_status(StatusCode.ERROR, error)
    span.set_attribute("error.type", error_type)
    event = {"exception.type": error_type, "exception.message": message or error}
    if stack:
        event["exception.stacktrace"] = stack
    span.add_event("exception", event)
