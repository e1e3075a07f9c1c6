"""When a node believes that it has forgotten what the database says it holds."""

from __future__ import annotations

from app.scheduler.engines.forgotten import LOOKS, Forgotten


def nobody(_: int) -> bool:
    return False


def test_what_is_held_and_unknown_look_after_look_is_forgotten() -> None:
    forgotten = Forgotten()
    for _ in range(LOOKS - 1):
        assert forgotten.look([(1, 1)], nobody) == []
    assert forgotten.look([(1, 1)], nobody) == [1]


def test_one_look_that_knows_it_starts_the_count_anew() -> None:
    forgotten = Forgotten()
    for _ in range(3):
        for _ in range(LOOKS - 1):
            assert forgotten.look([(1, 1)], nobody) == []
        assert forgotten.look([(1, 1)], lambda execution_id: execution_id == 1) == []


def test_another_attempt_is_another_thing_to_know() -> None:
    forgotten = Forgotten()
    for attempt in range(1, 3 * LOOKS):
        assert forgotten.look([(1, attempt)], nobody) == []
