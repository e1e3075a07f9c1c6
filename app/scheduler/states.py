"""The life of an execution: one table of moves.

```
(new) ────► pending      start ► running      cancel ► cancelled
            running      succeed ► success    fail ► failed         retry ► retrying
                         cancel ► cancelled   park ► parked         hand_back ► pending
                         suspend ► suspended
            retrying     start ► running      cancel ► cancelled
            suspended    start ► running      cancel ► cancelled
            parked       unpark ► pending     reopen ► pending      cancel ► cancelled
            failed       reopen ► pending
            cancelled    reopen ► pending
            success      the end
(new) ────► skipped      the end
```
"""

from __future__ import annotations

from enum import StrEnum

from app.core.errors import Conflict
from app.models.task_execution import ExecutionState as S


class Move(StrEnum):
    """What can happen to an execution."""

    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"
    CANCEL = "cancel"
    PARK = "park"
    UNPARK = "unpark"
    HAND_BACK = "hand_back"
    SUSPEND = "suspend"
    REOPEN = "reopen"


MOVES: dict[tuple[S, Move], S] = {
    (S.PENDING, Move.START): S.RUNNING,
    (S.RETRYING, Move.START): S.RUNNING,
    (S.SUSPENDED, Move.START): S.RUNNING,
    (S.RUNNING, Move.SUCCEED): S.SUCCESS,
    (S.RUNNING, Move.FAIL): S.FAILED,
    (S.RUNNING, Move.RETRY): S.RETRYING,
    (S.RUNNING, Move.CANCEL): S.CANCELLED,
    (S.PENDING, Move.CANCEL): S.CANCELLED,
    (S.RETRYING, Move.CANCEL): S.CANCELLED,
    (S.PARKED, Move.CANCEL): S.CANCELLED,
    (S.SUSPENDED, Move.CANCEL): S.CANCELLED,
    (S.RUNNING, Move.SUSPEND): S.SUSPENDED,
    (S.RUNNING, Move.PARK): S.PARKED,
    (S.PARKED, Move.UNPARK): S.PENDING,
    (S.RUNNING, Move.HAND_BACK): S.PENDING,
    (S.FAILED, Move.REOPEN): S.PENDING,
    (S.CANCELLED, Move.REOPEN): S.PENDING,
    (S.PARKED, Move.REOPEN): S.PENDING,
}


_DONE = {
    Move.START: "started",
    Move.SUCCEED: "finished",
    Move.FAIL: "failed",
    Move.RETRY: "retried",
    Move.CANCEL: "cancelled",
    Move.PARK: "parked",
    Move.UNPARK: "unparked",
    Move.HAND_BACK: "handed back",
    Move.SUSPEND: "suspended",
    Move.REOPEN: "retried",
}


def moved(state: S, move: Move) -> S:
    """The state after `move`.

    Raises:
        Conflict: the move is not allowed from `state`.
    """
    try:
        return MOVES[state, move]
    except KeyError:
        raise Conflict(f"the execution is {state.value}; it cannot be {_DONE[move]} from there") from None


def sources(move: Move) -> tuple[S, ...]:
    """The states `move` is allowed from, for the guard of an UPDATE."""
    return tuple(state for state, allowed in MOVES if allowed is move)
