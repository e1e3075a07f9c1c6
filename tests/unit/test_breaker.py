"""A circuit opens, tries, and closes as its table says, whatever comes in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.scheduler.breaker import Circuit, CircuitBreaker, Phase, Verdict, admit, closed, heard, put_off

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@st.composite
def breakers(draw: st.DrawFn) -> CircuitBreaker:
    window = draw(st.integers(1, 20))
    return CircuitBreaker(
        failure_rate=draw(st.sampled_from([0.1, 0.5, 1.0])),
        window=window,
        minimum=draw(st.integers(1, window)),
        open_seconds=draw(st.sampled_from([1.0, 30.0, 600.0])),
        probes=draw(st.integers(1, 4)),
    )


steps = st.lists(st.tuples(st.floats(0, 700), st.booleans(), st.booleans()), max_size=120)


@given(breakers(), steps)
def test_every_move_is_one_of_the_table(breaker: CircuitBreaker, moves: list[tuple[float, bool, bool]]) -> None:
    circuit, now, running = Circuit(), NOON, []
    for wait, starts, succeeds in moves:
        now += timedelta(seconds=wait)
        before = circuit
        if starts or not running:
            circuit, verdict = admit(circuit, breaker, now)
            assert (verdict is Verdict.START) is (before.phase is Phase.CLOSED)
            if verdict is Verdict.WAIT:
                assert before.probe_at is not None
                assert now < before.probe_at
                assert circuit == before
            else:
                running.append((now, before.phase if verdict is Verdict.START else Phase.HALF_OPEN))
            allowed = {(Phase.OPEN, Phase.HALF_OPEN)}
        else:
            started_at, started_in = running.pop(0)
            circuit = heard(circuit, breaker, succeeded=succeeds, started_at=started_at, now=now)
            allowed = {(Phase.CLOSED, Phase.OPEN), (Phase.HALF_OPEN, Phase.OPEN), (Phase.HALF_OPEN, Phase.CLOSED)}
            if started_in is Phase.CLOSED and before.phase is Phase.HALF_OPEN:
                assert circuit == before or started_at >= before.since
        assert before.phase is circuit.phase or (before.phase, circuit.phase) in allowed
        assert (circuit.phase is Phase.CLOSED) is (circuit.probe_at is None)
        assert len(circuit.outcomes) <= breaker.window
        if circuit.phase is Phase.CLOSED and len(circuit.outcomes) >= breaker.minimum:
            assert circuit.outcomes.count("0") < breaker.failure_rate * len(circuit.outcomes)


@given(breakers(), st.integers(1, 50))
def test_an_open_circuit_lets_no_more_than_its_probes_through_in_a_pause(
    breaker: CircuitBreaker, asks: int
) -> None:
    circuit = opened(breaker)
    now = NOON + breaker.pause
    verdicts = []
    for _ in range(asks):
        circuit, verdict = admit(circuit, breaker, now)
        verdicts.append(verdict)
    assert verdicts.count(Verdict.PROBE) == min(asks, breaker.probes)
    assert Verdict.START not in verdicts


@given(breakers())
def test_it_closes_when_all_probes_succeeded_and_its_past_is_forgiven(breaker: CircuitBreaker) -> None:
    circuit, now = opened(breaker), NOON + breaker.pause
    for _ in range(breaker.probes):
        assert circuit.phase is not Phase.CLOSED
        circuit, verdict = admit(circuit, breaker, now)
        assert verdict is Verdict.PROBE
    for _ in range(breaker.probes):
        circuit = heard(circuit, breaker, succeeded=True, started_at=now, now=now + SECOND)
    assert circuit == closed(now + SECOND)
    assert circuit.outcomes == ""


@given(breakers())
def test_one_failing_probe_opens_it_again_for_a_whole_pause(breaker: CircuitBreaker) -> None:
    circuit, now = opened(breaker), NOON + breaker.pause
    circuit, _ = admit(circuit, breaker, now)
    circuit = heard(circuit, breaker, succeeded=False, started_at=now, now=now + SECOND)
    assert (circuit.phase, circuit.probe_at) == (Phase.OPEN, now + SECOND + breaker.pause)


@given(breakers(), st.booleans())
def test_what_began_before_it_opened_says_nothing(breaker: CircuitBreaker, succeeded: bool) -> None:
    circuit, _ = admit(opened(breaker), breaker, NOON + breaker.pause)
    assert heard(circuit, breaker, succeeded=succeeded, started_at=NOON, now=NOON + 2 * breaker.pause) == circuit


@given(breakers())
def test_a_probe_that_is_never_heard_of_again_does_not_keep_it_open(breaker: CircuitBreaker) -> None:
    circuit, now = opened(breaker), NOON
    for _ in range(5):
        now += breaker.pause
        for _ in range(breaker.probes):
            circuit, verdict = admit(circuit, breaker, now)
            assert verdict is Verdict.PROBE
        assert admit(circuit, breaker, now)[1] is Verdict.WAIT


@given(breakers(), st.floats(0, 365 * 86_400))
def test_a_clock_that_goes_back_keeps_it_open_no_longer_than_a_pause(breaker: CircuitBreaker, back: float) -> None:
    circuit, now = opened(breaker), NOON - timedelta(seconds=back)
    assert put_off(circuit, breaker, now)[1] <= now + breaker.pause


@given(breakers(), st.integers(2, 200))
def test_who_must_wait_is_spread_over_the_probes_to_come(breaker: CircuitBreaker, count: int) -> None:
    circuit, moments = opened(breaker), []
    for _ in range(count):
        circuit, moment = put_off(circuit, breaker, NOON)
        moments.append(moment)
    assert moments[0] == circuit.probe_at
    assert moments == sorted(moments)
    assert moments[-1] <= NOON + 61 * breaker.pause


def test_by_default_it_opens_at_the_fifth_attempt_when_half_of_them_have_failed() -> None:
    circuit, breaker = Circuit(), CircuitBreaker()
    phases = []
    for succeeded in (True, False, True, False, False):
        circuit = heard(circuit, breaker, succeeded=succeeded, started_at=NOON, now=NOON)
        phases.append(circuit.phase)
    assert phases == [Phase.CLOSED] * 4 + [Phase.OPEN]


def test_a_minimum_above_the_window_is_refused() -> None:
    with pytest.raises(ValidationError, match="minimum 5 exceeds window 3"):
        CircuitBreaker(window=3)


def opened(breaker: CircuitBreaker) -> Circuit:
    """A circuit that has just opened, at noon."""
    circuit = Circuit()
    for _ in range(breaker.window):
        if circuit.phase is Phase.CLOSED:
            circuit = heard(circuit, breaker, succeeded=False, started_at=NOON, now=NOON)
    assert circuit.phase is Phase.OPEN
    return circuit
