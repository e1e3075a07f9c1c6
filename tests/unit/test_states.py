from __future__ import annotations

import pytest

from app.core.errors import Conflict
from app.models.task_execution import FINAL_STATES, ExecutionState
from app.scheduler.states import MOVES, Move, moved, sources


@pytest.mark.parametrize("state", ExecutionState)
@pytest.mark.parametrize("move", Move)
def test_a_move_is_in_the_table_or_refused_with_both_named(state: ExecutionState, move: Move) -> None:
    if (state, move) in MOVES:
        assert moved(state, move) is MOVES[state, move]
        assert state in sources(move)
    else:
        with pytest.raises(Conflict, match=state.value):
            moved(state, move)


def test_success_and_skipped_are_left_by_no_move() -> None:
    assert not {state for state, _ in MOVES} & {ExecutionState.SUCCESS, ExecutionState.SKIPPED}


def test_every_state_is_reached_or_a_beginning() -> None:
    beginnings = {ExecutionState.PENDING, ExecutionState.SKIPPED}
    assert set(MOVES.values()) | beginnings == set(ExecutionState)
    assert set(FINAL_STATES) < set(ExecutionState)
