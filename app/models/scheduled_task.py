"""`scheduled_tasks`: the stored definitions.

Every column that code may leave out has a server default, so that a task inserted by plain SQL runs like any
other: the clock arms it (computes `next_run_at`) when it first sees it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CheckConstraint, Float, Index, Integer, String, Table, false, func, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.readable import refuse_unreadable
from app.db.types import Json, SafeText, UtcDateTime


class ScheduledTask(Base):
    """One task: what to run, when, and under which policies."""

    __tablename__ = "scheduled_tasks"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str] = mapped_column(SafeText, server_default="", default="")
    task_type: Mapped[str] = mapped_column(String(100))
    params: Mapped[dict[str, Any]] = mapped_column(Json, server_default="{}", default=dict)

    schedule_type: Mapped[str | None] = mapped_column(String(10))
    schedule_expression: Mapped[str | None] = mapped_column(String(200))
    """cron: the expression; interval: seconds; at: an ISO 8601 moment."""
    timezone: Mapped[str] = mapped_column(String(64), server_default="UTC")
    dst_policy: Mapped[str] = mapped_column(String(10), server_default="cron", default="cron")
    start_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    end_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    jitter_seconds: Mapped[float] = mapped_column(Float, server_default="0", default=0.0)

    is_active: Mapped[bool] = mapped_column(server_default=true(), default=True)
    priority: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    timeout_seconds: Mapped[float | None] = mapped_column(Float)
    retry: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`RetryPolicy` as JSON; NULL: the executor's own defaults."""
    misfire_policy: Mapped[str] = mapped_column(String(10), server_default="latest", default="latest")
    misfire_grace_seconds: Mapped[float] = mapped_column(Float, server_default="60", default=60.0)
    overlap_policy: Mapped[str] = mapped_column(String(20), server_default="skip", default="skip")
    concurrency_key: Mapped[str | None] = mapped_column(String(200))
    concurrency_limit: Mapped[int | None] = mapped_column(Integer)

    next_run_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The next fire. NULL: not armed yet, paused, without a schedule, or (`exhausted_at`) over."""
    exhausted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the schedule had no fire left."""
    schedule_error: Mapped[str | None] = mapped_column(SafeText)
    """Why the schedule cannot be read; the task waits, visible, until it is mended."""
    last_run_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the last run ended, however it was started, but for backfills: they are about the past."""
    last_state: Mapped[str | None] = mapped_column(String(10))

    declared: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """The definition last declared in code; NULL: made by an operator."""
    declaration_missing: Mapped[bool] = mapped_column(server_default=false(), default=False)
    """True: declared by an earlier start, no longer by the code of the last one."""
    version: Mapped[int] = mapped_column(Integer, server_default="1", default=1)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())

    rate_limit: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`RateLimit` as JSON: of this task alone, beside that of its executor."""
    run_window: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`RunWindow` as JSON: when it may fire."""
    calendar: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`Calendar` as JSON: the days on which it does not."""
    closed_policy: Mapped[str] = mapped_column(String(10), server_default="skip", default="skip")
    """What becomes of a fire outside of them: `skip` or `defer`."""

    __table_args__ = (
        CheckConstraint(
            "schedule_type IS NULL OR schedule_type IN ('cron', 'interval', 'at')", name="schedule_type"
        ),
        CheckConstraint("(schedule_type IS NULL) = (schedule_expression IS NULL)", name="schedule"),
        CheckConstraint("misfire_policy IN ('latest', 'all', 'skip')", name="misfire_policy"),
        CheckConstraint("overlap_policy IN ('skip', 'queue', 'allow', 'cancel_running')", name="overlap_policy"),
        CheckConstraint("dst_policy IN ('cron', 'skip')", name="dst_policy"),
        CheckConstraint("concurrency_limit IS NULL OR concurrency_limit >= 1", name="concurrency_limit"),
        CheckConstraint("closed_policy IN ('skip', 'defer')", name="closed_policy"),
        Index(
            "ix_scheduled_tasks_due",
            "next_run_at",
            sqlite_where=text("is_active = 1 AND next_run_at IS NOT NULL"),
            postgresql_where=text("is_active AND next_run_at IS NOT NULL"),
        ),
        Index(
            "ix_scheduled_tasks_unarmed",
            "id",
            sqlite_where=text(
                "is_active = 1 AND next_run_at IS NULL AND exhausted_at IS NULL"
                " AND schedule_error IS NULL AND schedule_type IS NOT NULL"
            ),
            postgresql_where=text(
                "is_active AND next_run_at IS NULL AND exhausted_at IS NULL"
                " AND schedule_error IS NULL AND schedule_type IS NOT NULL"
            ),
        ),
        *(
            Index(
                f"ix_scheduled_tasks_{name}",
                column,
                sqlite_where=text("is_active = 1" + condition),
                postgresql_where=text("is_active" + condition),
            )
            for name, column, condition in (
                ("broken", "id", " AND schedule_error IS NOT NULL"),
                ("failing", "id", " AND last_state = 'failed'"),
                ("type", "task_type", ""),
            )
        ),
        {"sqlite_autoincrement": True},
    )


refuse_unreadable(cast("Table", ScheduledTask.__table__))
