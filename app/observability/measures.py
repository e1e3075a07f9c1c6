"""What is measured: events are counted as they come, the rest is read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError

from app.observability import instruments as of
from app.observability.database_state import read_database_state
from app.observability.instruments import Instrument
from app.scheduler.events import ExecutionChanged
from app.scheduler.runtime import Runtime

APPLICATION = "application"
"""The holder of a loop that no executor held."""


class Sink(Protocol):
    """Where counts and durations go: to Prometheus, to OpenTelemetry. Called from any thread."""

    def count(self, instrument: Instrument, *labels: str) -> None:
        """One more; `labels` are the values of the instrument's labels, in their order."""

    def observe(self, instrument: Instrument, value: float, *labels: str) -> None:
        """One value of a histogram."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The value of a gauge now."""

    instrument: Instrument
    value: float
    labels: tuple[str, ...] = ()


class Measures:
    """Counts for `sinks` what happens in one runtime (see `app.scheduler.telemetry.Meter`)."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    def execution_changed(self, event: ExecutionChanged) -> None:
        attempt = event.attempt
        if attempt is None:
            return
        for sink in self._sinks:
            sink.count(of.ATTEMPTS, attempt.task_type, event.state.value)
            sink.observe(of.ATTEMPT_DURATION, attempt.duration_seconds, attempt.task_type)
            if attempt.late_seconds is not None:
                sink.observe(of.FIRE_LATE, attempt.late_seconds, attempt.task_type)

    def group_committed(self, writes: int, seconds: float) -> None:
        for sink in self._sinks:
            sink.observe(of.JOURNAL_GROUP, writes)
            sink.observe(of.JOURNAL_COMMIT, seconds)

    def loop_answered(self, holder: str | None, seconds: float) -> None:
        for sink in self._sinks:
            sink.observe(of.LOOP_LAG, seconds, holder or APPLICATION)


class Gauges:
    """Reads the gauges of one runtime. Asks the database: not for the event loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def read(self) -> list[Reading]:
        """All of them; without a database, those of the process."""
        readings = list(self._of_process())
        try:
            readings += self._of_database()
            reached = 1
        except (SQLAlchemyError, OSError) as error:
            logger.warning("无法从数据库读取指标: {}", error)
            reached = 0
        return [*readings, Reading(of.DATABASE_REACHED, reached)]

    def _of_database(self) -> list[Reading]:
        with self._runtime.sessions() as session:
            state = read_database_state(session, self._runtime.clock.now())
        return [
            *(Reading(of.QUEUE_EXECUTIONS, count, (name,)) for name, count in state.depth.items()),
            Reading(of.QUEUE_OLDEST_DUE, state.oldest_due_seconds),
            *(Reading(of.CIRCUIT_OPEN, int(is_open), (name,)) for name, is_open in state.circuit_open.items()),
            *(Reading(of.NODE_HEARTBEAT_AGE, age, (node,)) for node, age in state.heartbeat_age_seconds.items()),
        ]

    def _of_process(self) -> Iterator[Reading]:
        status = self._runtime.engine_status()
        for lane in ("thread", "loop", "delivery"):
            places = status.get(f"{lane}_lane")
            if places is not None:
                yield Reading(of.LANE_BUSY, places["busy"], (lane,))
                yield Reading(of.LANE_FREE, places["free"], (lane,))
        if "waiting_in_memory" in status:
            yield Reading(of.LANES_WAITING, status["waiting_in_memory"])
        lease_seconds = self._runtime.lease_seconds
        if lease_seconds is not None:
            yield Reading(of.LEASE_REMAINING, lease_seconds)
