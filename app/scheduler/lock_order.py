"""One order for all processes in which a journal's transaction locks rows, where the database has locks of rows.

Most transactions touch rows of their own node only. Some reach out: a signal, and the end of a child whose parent
another node has. Two such groups would sooner or later wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from app.scheduler.attempts import FinishAttempt, StartAttempt
from app.scheduler.children import RecordChild
from app.scheduler.family import lock_in_order
from app.scheduler.journal import Write
from app.scheduler.steps import RecordStep, SendSignal, TakeSignal


def lock_rows(connection: Connection, writes: Sequence[Write[Any]]) -> None:
    """Lock the executions that `writes` touch, if one of them reaches out."""
    if connection.dialect.name == "sqlite":
        return
    reaching = [
        write
        for write in writes
        if isinstance(write, SendSignal) or (isinstance(write, FinishAttempt) and write.parent_id is not None)
    ]
    if reaching:
        parents = [write.parent_id for write in reaching if isinstance(write, FinishAttempt)]
        touched = [_touched(write) for write in writes]
        lock_in_order(connection, [row for row in (*parents, *touched) if row is not None])


def _touched(write: Write[Any]) -> int | None:
    if isinstance(write, StartAttempt | FinishAttempt | SendSignal):
        return write.execution_id
    if isinstance(write, RecordStep | RecordChild | TakeSignal):
        return write.fence.execution_id
    return None
