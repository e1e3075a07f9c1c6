"""The circuit breaker of an executor: a state machine of values.

```
closed ──── too many of the last attempts failed ────► open
open ────── open_seconds later, a probe starts ──────► half_open
half_open ─ the probes succeeded ────────────────────► closed
half_open ─ a probe failed ──────────────────────────► open
half_open ─ no word of a probe for open_seconds ─────► half_open, the next probe starts
```
While it is open, executions wait; they do not fail, and use up no attempt.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from app.core.language import Said

_LONGEST_LINE = 60
"""Probe times for which executions that are put off are spread over the time to come."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CircuitBreaker:
    """When to stop starting an executor's attempts for a while.

    It opens when at least `minimum` of the last `window` attempts are known and the share of failures among them
    reaches `failure_rate`. After `open_seconds` it lets `probes` attempts through: if all of them succeed it
    closes, with a clean window; if one fails it is open again.
    """

    failure_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] = 0.5
    window: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    minimum: Annotated[int, Field(ge=1, le=1000, strict=True)] = 5
    open_seconds: Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False, strict=True)] = 60.0
    probes: Annotated[int, Field(ge=1, le=100, strict=True)] = 1

    @model_validator(mode="after")
    def _consistent(self) -> CircuitBreaker:
        if self.minimum > self.window:
            raise ValueError(
                Said(
                    f"minimum {self.minimum} exceeds window {self.window}: it could never open",
                    f"minimum {self.minimum} 大于 window {self.window}：熔断器永远不会打开",
                )
            )
        return self

    @property
    def pause(self) -> timedelta:
        """`open_seconds` as a duration."""
        return timedelta(seconds=self.open_seconds)


class Phase(StrEnum):
    """What a circuit does with an execution that wants to start."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@plain_dataclass(frozen=True, slots=True)
class Circuit:
    """What is known of a circuit; as it is without a record: closed."""

    phase: Phase = Phase.CLOSED
    outcomes: str = ""
    """The last attempts, oldest first: `1` succeeded, `0` failed."""
    since: datetime | None = None
    """When it came into this phase."""
    probe_at: datetime | None = None
    """When the next probes may start; None: it is closed."""
    probes_left: int = 0
    successes: int = 0
    line_end: datetime | None = None
    """The moment given to the last one that was put off."""


class Verdict(StrEnum):
    """What becomes of an execution that wants to start."""

    START = "start"
    PROBE = "probe"
    WAIT = "wait"


def admit(circuit: Circuit, breaker: CircuitBreaker, now: datetime) -> tuple[Circuit, Verdict]:
    """Whether an attempt may start at `now`, and the circuit after that."""
    if circuit.phase is Phase.CLOSED:
        return circuit, Verdict.START
    if circuit.probes_left > 0:
        return replace(circuit, probes_left=circuit.probes_left - 1), Verdict.PROBE
    if now < _probe_at(circuit, breaker, now):
        return circuit, Verdict.WAIT
    fresh = circuit.phase is Phase.OPEN
    return (
        replace(
            circuit,
            phase=Phase.HALF_OPEN,
            since=now if fresh else circuit.since,
            successes=0 if fresh else circuit.successes,
            probe_at=now + breaker.pause,
            probes_left=breaker.probes - 1,
        ),
        Verdict.PROBE,
    )


def heard(
    circuit: Circuit, breaker: CircuitBreaker, *, succeeded: bool, started_at: datetime, now: datetime
) -> Circuit:
    """The circuit after the end of an attempt. One that began before the circuit came into its phase says
    nothing."""
    if circuit.phase is Phase.OPEN or (circuit.since is not None and started_at < circuit.since):
        return circuit
    if circuit.phase is Phase.HALF_OPEN:
        if not succeeded:
            return _opened(breaker, now)
        successes = circuit.successes + 1
        return closed(now) if successes >= breaker.probes else replace(circuit, successes=successes)
    outcomes = (circuit.outcomes + ("1" if succeeded else "0"))[-breaker.window :]
    if len(outcomes) >= breaker.minimum and outcomes.count("0") >= breaker.failure_rate * len(outcomes):
        return _opened(breaker, now)
    return replace(circuit, outcomes=outcomes)


def put_off(circuit: Circuit, breaker: CircuitBreaker, now: datetime) -> tuple[Circuit, datetime]:
    """When one that must wait shall try again, if the circuit does not close before; and the circuit that
    remembers.

    They are spread over the times of probes to come: whoever comes too early would only be moved again.
    """
    first = _probe_at(circuit, breaker, now)
    end = circuit.line_end
    latest = first + breaker.pause * _LONGEST_LINE
    moment = first if end is None or end < first else min(end + breaker.pause / breaker.probes, latest)
    return replace(circuit, line_end=moment), moment


def closed(now: datetime) -> Circuit:
    """A circuit that has closed: its past is forgiven."""
    return Circuit(since=now)


def _opened(breaker: CircuitBreaker, now: datetime) -> Circuit:
    return Circuit(phase=Phase.OPEN, since=now, probe_at=now + breaker.pause)


def _probe_at(circuit: Circuit, breaker: CircuitBreaker, now: datetime) -> datetime:
    """Never further away than a whole pause: a clock that went back must not keep it open."""
    latest = now + breaker.pause
    return latest if circuit.probe_at is None else min(circuit.probe_at, latest)
