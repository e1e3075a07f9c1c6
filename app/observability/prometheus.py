"""`/metrics`: what Prometheus scrapes. Needs the extra `[metrics]`; this module alone imports `prometheus_client`.

Two kinds of series, told apart by their names. `contenthub_queue_…` and `contenthub_node_…` are global: read from
the database at each scrape, equal from every process (aggregate with `max`). All others are this process's own
(aggregate with `sum`): scrape each process, not a load balancer in front of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from app.observability.database_state import read_database_state
from app.scheduler.events import ExecutionChanged
from app.scheduler.runtime import Runtime

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""Upper bounds of the histograms: a request's milliseconds up to an hour of generation."""


class PrometheusMetrics:
    """The metrics of one runtime, in a registry of its own. It counts from the moment it is made."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, runtime: Runtime) -> None:
        self._registry = CollectorRegistry()
        self._attempts = Counter(
            "contenthub_attempts",
            "Attempts that ended in this process, by executor type and the state they left the execution in.",
            ("task_type", "state"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "contenthub_attempt_duration_seconds",
            "How long attempts took in this process.",
            ("task_type",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._lateness = Histogram(
            "contenthub_fire_late_seconds",
            "From the scheduled moment of a fire to the start of its first attempt, in this process.",
            ("task_type",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Readings(runtime))
        runtime.events.subscribe(self._count)

    def exposition(self) -> bytes:
        """All series in Prometheus's text format. Asks the database: not for the event loop."""
        return generate_latest(self._registry)

    def _count(self, event: ExecutionChanged) -> None:
        attempt = event.attempt
        if attempt is None:
            return
        self._attempts.labels(attempt.task_type, event.state.value).inc()
        self._durations.labels(attempt.task_type).observe(attempt.duration_seconds)
        if attempt.late_seconds is not None:
            self._lateness.labels(attempt.task_type).observe(attempt.late_seconds)


class _Readings(Collector):
    """What is read at the moment of a scrape and counted by nobody."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def describe(self) -> Iterable[Metric]:
        """Nothing: asked at registration, when the database may not have its tables yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        yield from self._of_database()
        yield from self._of_process()

    def _of_database(self) -> Iterable[Metric]:
        with self._runtime.sessions() as session:
            state = read_database_state(session, self._runtime.clock.now())
        depth = GaugeMetricFamily(
            "contenthub_queue_executions", "Executions that are not over, in all processes.", labels=["state"]
        )
        for name, count in state.depth.items():
            depth.add_metric([name], count)
        yield depth
        yield GaugeMetricFamily(
            "contenthub_queue_oldest_due_seconds",
            "How long the execution that has been due longest has waited, in all processes.",
            value=state.oldest_due_seconds,
        )
        beats = GaugeMetricFamily(
            "contenthub_node_heartbeat_age_seconds", "Since the last heartbeat of each node.", labels=["node"]
        )
        for node, age in state.heartbeat_age_seconds.items():
            beats.add_metric([node], age)
        yield beats

    def _of_process(self) -> Iterable[Metric]:
        journal = self._runtime.journal
        yield CounterMetricFamily(
            "contenthub_journal_groups",
            "Groups that the writer of this process committed.",
            journal.groups_committed,
        )
        yield CounterMetricFamily(
            "contenthub_journal_writes",
            "Writes in those groups; over groups it is the mean size of a batch.",
            journal.writes_committed,
        )
        status = self._runtime.engine_status()
        busy = GaugeMetricFamily(
            "contenthub_lane_busy", "Places taken in a lane of this process.", labels=["lane"]
        )
        free = GaugeMetricFamily("contenthub_lane_free", "Places free in a lane of this process.", labels=["lane"])
        for lane in ("thread", "loop"):
            places = status.get(f"{lane}_lane")
            if places is not None:
                busy.add_metric([lane], places["busy"])
                free.add_metric([lane], places["free"])
        yield busy
        yield free
