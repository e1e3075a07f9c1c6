"""Every metric, defined once: `/metrics` for Prometheus and OTLP are both made from this table.

Names and units are OpenTelemetry's; Prometheus's follow from them by the rule of the specification (dots become
underscores, the unit of seconds and a counter's `total` are appended), so a series that reaches Prometheus through
a collector has the name it has at `/metrics`.

`contenthub.queue.…`, `contenthub.circuit.…` and `contenthub.node.…` are global: read from the database,
equal from every process (aggregate with `max`). All others are the process's own (aggregate with `sum`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ATTRIBUTES = {
    "task_type": "contenthub.executor.type",
    "state": "contenthub.execution.state",
    "lane": "contenthub.lane",
    "node": "contenthub.node.id",
}
"""What a label of Prometheus is called as an attribute of OpenTelemetry, there as on spans."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""A request's milliseconds up to an hour of generation."""
_BRIEF_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WRITES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


class Kind(Enum):
    """How a value comes about. Counters and histograms are told of events, gauges are read when asked for."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. `unit` is UCUM's (`s`, `{attempt}`); `bounds` are the upper bounds of a histogram's buckets."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """Without the suffixes that the Prometheus client appends by itself (`_total`, `_bucket` …)."""
        name = self.name.replace(".", "_")
        return f"{name}_seconds" if self.unit == "s" else name


ATTEMPTS = Instrument(
    "contenthub.attempts",
    Kind.COUNTER,
    "{attempt}",
    "Attempts that ended in this process, by executor type and the state they left the execution in.",
    ("task_type", "state"),
)
ATTEMPT_DURATION = Instrument(
    "contenthub.attempt.duration",
    Kind.HISTOGRAM,
    "s",
    "How long attempts took in this process.",
    ("task_type",),
    _SECONDS,
)
FIRE_LATE = Instrument(
    "contenthub.fire.late",
    Kind.HISTOGRAM,
    "s",
    "From the scheduled moment of a fire to the start of its first attempt, in this process; without backfills.",
    ("task_type",),
    _SECONDS,
)
LOOP_LAG = Instrument(
    "contenthub.loop.lag",
    Kind.HISTOGRAM,
    "s",
    "How long the application's event loop took to answer, by the executor that held it ('application': none).",
    ("task_type",),
    _BRIEF_SECONDS,
)
JOURNAL_GROUP = Instrument(
    "contenthub.journal.group.size",
    Kind.HISTOGRAM,
    "{write}",
    "Writes in each group that the journal of this process committed.",
    bounds=_WRITES,
)
JOURNAL_COMMIT = Instrument(
    "contenthub.journal.commit.duration",
    Kind.HISTOGRAM,
    "s",
    "How long the journal of this process took to store and commit a group.",
    bounds=_BRIEF_SECONDS,
)
QUEUE_EXECUTIONS = Instrument(
    "contenthub.queue.executions",
    Kind.GAUGE,
    "{execution}",
    "Executions that are not over, in all processes.",
    ("state",),
)
QUEUE_OLDEST_DUE = Instrument(
    "contenthub.queue.oldest_due",
    Kind.GAUGE,
    "s",
    "How long the execution that has been due longest has waited, in all processes.",
)
CIRCUIT_OPEN = Instrument(
    "contenthub.circuit.open",
    Kind.GAUGE,
    "{circuit}",
    "Whether the circuit breaker of an executor holds its executions back: 1 (open, half open) or 0.",
    ("task_type",),
)
NODE_HEARTBEAT_AGE = Instrument(
    "contenthub.node.heartbeat.age", Kind.GAUGE, "s", "Since the last heartbeat of each node.", ("node",)
)
LANE_BUSY = Instrument(
    "contenthub.lane.busy", Kind.GAUGE, "{attempt}", "Places taken in a lane of this process.", ("lane",)
)
LANE_FREE = Instrument(
    "contenthub.lane.free", Kind.GAUGE, "{attempt}", "Places free in a lane of this process.", ("lane",)
)
LANES_WAITING = Instrument(
    "contenthub.lanes.waiting",
    Kind.GAUGE,
    "{attempt}",
    "Attempts that wait in the memory of this process for a place.",
)
LEASE_REMAINING = Instrument(
    "contenthub.lease.remaining",
    Kind.GAUGE,
    "s",
    "How long the node of this process may go on without another heartbeat; negative: its lease has lapsed.",
)
DATABASE_REACHED = Instrument(
    "contenthub.database.reached",
    Kind.GAUGE,
    "{database}",
    "Whether the database answered when these values were read: 1 or 0.",
)

INSTRUMENTS = tuple(value for value in vars().values() if isinstance(value, Instrument))
