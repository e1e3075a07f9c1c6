"""`execution_steps` and `execution_signals`: what an execution has done for good, and what it was told."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.types import Json, UtcDateTime


class StepKind(StrEnum):
    """What is stored under a step's name."""

    STEP = "step"
    SLEEP = "sleep"
    SIGNAL = "signal"


_KINDS = ", ".join(f"'{kind.value}'" for kind in StepKind)


class ExecutionStep(Base):
    """A step that finished, or a wait: open until `finished_at`. One row an execution, kind and name, whatever
    number of attempts it took."""

    __tablename__ = "execution_steps"

    execution_id: Mapped[int] = mapped_column(
        ForeignKey("task_executions.id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    name: Mapped[str] = mapped_column(String(210), primary_key=True)
    position: Mapped[int | None] = mapped_column(Integer)
    """Its place among the calls of the executor's own coroutine; NULL: called by a task beside that one."""
    attempt: Mapped[int] = mapped_column(Integer)
    """The attempt that stored its end, or began to wait."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Of a wait: when it ends by itself; NULL: never."""
    result: Mapped[Any] = mapped_column(Json, nullable=True)
    """JSON; NULL stands for `null`. Of a signal: `{"payload": …}`, or `{"timed_out": true}`."""

    __table_args__ = (CheckConstraint(f"kind IN ({_KINDS})", name="kind"),)


class ExecutionSignal(Base):
    """Something an execution was told from outside; one wait takes it, in the order of `id`."""

    __tablename__ = "execution_signals"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    execution_id: Mapped[int] = mapped_column(ForeignKey("task_executions.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    payload: Mapped[Any] = mapped_column(Json, nullable=True)
    signalled_by: Mapped[str | None] = mapped_column(String(200))
    signalled_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    consumed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("ix_execution_signals_execution", "execution_id", "id"),
        {"sqlite_autoincrement": True},
    )
