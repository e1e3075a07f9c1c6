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
from app.core.language import Said
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


IN_CHINESE = {
    S.PENDING: "等待中",
    S.RUNNING: "运行中",
    S.RETRYING: "待重试",
    S.SUSPENDED: "已挂起",
    S.PARKED: "已搁置",
    S.SUCCESS: "成功",
    S.FAILED: "失败",
    S.CANCELLED: "已取消",
    S.SKIPPED: "已跳过",
}
"""What the pages call the states."""

_DONE = {
    Move.START: Said("started", "开始"),
    Move.SUCCEED: Said("finished", "完成"),
    Move.FAIL: Said("failed", "失败"),
    Move.RETRY: Said("retried", "重试"),
    Move.CANCEL: Said("cancelled", "取消"),
    Move.PARK: Said("parked", "搁置"),
    Move.UNPARK: Said("unparked", "恢复"),
    Move.HAND_BACK: Said("handed back", "交还"),
    Move.SUSPEND: Said("suspended", "挂起"),
    Move.REOPEN: Said("retried", "重试"),
}


def moved(state: S, move: Move) -> S:
    """The state after `move`.

    Raises:
        Conflict: the move is not allowed from `state`.
    """
    try:
        return MOVES[state, move]
    except KeyError:
        raise Conflict(
            Said(
                f"the execution is {state.value}; it cannot be {_DONE[move].en} from there",
                f"执行的状态是{IN_CHINESE[state]}，不能再{_DONE[move].zh}",
            )
        ) from None


def sources(move: Move) -> tuple[S, ...]:
    """The states `move` is allowed from, for the guard of an UPDATE."""
    return tuple(state for state, allowed in MOVES if allowed is move)
