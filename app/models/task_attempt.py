"""`task_attempts` and `execution_logs`: each try at an execution, and what it said."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.types import SafeText, UtcDateTime


class TaskAttempt(Base):
    """One attempt. Its status is the seed's `TaskStatus`; a reason says more (timeout, node_lost …)."""

    __tablename__ = "task_attempts"

    execution_id: Mapped[int] = mapped_column(
        ForeignKey("task_executions.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    node: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(10))
    reason: Mapped[str | None] = mapped_column(String(30))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    duration_seconds: Mapped[float | None] = mapped_column(Float)
    message: Mapped[str | None] = mapped_column(SafeText)
    error: Mapped[str | None] = mapped_column(SafeText)
    traceback: Mapped[str | None] = mapped_column(SafeText)

    __table_args__ = (CheckConstraint("status IN ('running', 'success', 'failed')", name="status"),)


class ExecutionLog(Base):
    """One log line of an attempt."""

    __tablename__ = "execution_logs"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    execution_id: Mapped[int] = mapped_column(ForeignKey("task_executions.id", ondelete="CASCADE"))
    attempt: Mapped[int] = mapped_column(Integer)
    logged_at: Mapped[datetime] = mapped_column(UtcDateTime)
    level: Mapped[str] = mapped_column(String(20))
    message: Mapped[str] = mapped_column(SafeText)

    __table_args__ = (
        Index("ix_execution_logs_execution", "execution_id", "id"),
        {"sqlite_autoincrement": True},
    )
