"""What the scheduler tells whoever traces and measures it; where nobody does, one object hears it.

Nothing below `app/observability` knows OpenTelemetry or Prometheus: it knows these two protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:  # the command line imports this, and does without SQLAlchemy where it can
    from app.models.task_execution import Execution, ExecutionState


class Origin(Protocol):
    """What executions come from: a request, or a batch of fires."""

    def trace_context(self) -> str | None:
        """The W3C `traceparent` that the executions carry to whoever runs them; None: nobody traces."""

    def recorded(self, executions: Sequence[Execution]) -> None:
        """These executions are what came of it."""


class AttemptSpan(Protocol):
    """The span of a running attempt."""

    def decided(self, state: ExecutionState, reason: str | None, error: str | None, stack: str | None) -> None:
        """What becomes of the execution; the last word counts."""

    def close(self) -> None:
        """The attempt is over. Calling it again does nothing. Safe from any thread."""


class Tracer(Protocol):
    """Makes a trace of what happens to executions."""

    def enqueue(self, task_type: str) -> AbstractContextManager[Origin]:
        """A request for one execution of `task_type` is being recorded."""

    def fire(self) -> AbstractContextManager[Origin]:
        """Due tasks are being fired; there is a span only if there are any."""

    def attempt(self, execution: Execution, number: int, node: str) -> AttemptSpan:
        """An attempt begins here: its span is the current one for the rest of this context (the runner's task)."""

    def step(self, name: str) -> AbstractContextManager[object]:
        """A named part of the current attempt."""

    def ids(self) -> Mapping[str, str]:
        """`trace_id` and `span_id` of the current span, for log records; empty where there is none."""

    def outgoing(self) -> Mapping[str, str]:
        """The headers with which a request to elsewhere says that it is part of the current span."""


class Meter(Protocol):
    """Measures what passes too quickly to be asked for later."""

    def group_committed(self, writes: int, seconds: float) -> None:
        """The journal has committed a group."""

    def loop_answered(self, holder: str | None, seconds: float) -> None:
        """The application's loop has answered after so long; `holder` is the executor it was busy with, if any."""


class Untraced:
    """The tracer, the origin and the span of a scheduler that nobody traces."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was begun."""

    def enqueue(self, task_type: str) -> Self:
        return self

    def fire(self) -> Self:
        return self

    def attempt(self, execution: Execution, number: int, node: str) -> Self:
        return self

    def step(self, name: str) -> Self:
        return self

    def ids(self) -> Mapping[str, str]:
        return _NOTHING

    def outgoing(self) -> Mapping[str, str]:
        return _NOTHING

    def trace_context(self) -> str | None:
        return None

    def recorded(self, executions: Sequence[Execution]) -> None:
        """Nobody asked."""

    def decided(self, state: ExecutionState, reason: str | None, error: str | None, stack: str | None) -> None:
        """Nobody asked."""

    def close(self) -> None:
        """Nothing is open."""


class Unmeasured:
    """The meter of a scheduler that nobody measures."""

    def group_committed(self, writes: int, seconds: float) -> None:
        """Nobody asked."""

    def loop_answered(self, holder: str | None, seconds: float) -> None:
        """Nobody asked."""


_NOTHING: Mapping[str, str] = {}
UNTRACED = Untraced()
UNMEASURED = Unmeasured()
