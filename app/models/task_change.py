"""`task_changes`: who changed a task, when, and what it was before."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.types import Json, UtcDateTime


class TaskChange(Base):
    """One change of one task, written in the transaction that makes it. No foreign key: it outlives its task."""

    __tablename__ = "task_changes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    task_id: Mapped[int] = mapped_column(Integer)
    task_name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(Integer)
    """The task's version after the change."""
    action: Mapped[str] = mapped_column(String(10))
    """create, update, pause, resume, delete."""
    changed_by: Mapped[str] = mapped_column(String(200))
    """A token's name, `local`, `cli` or `code`."""
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changes: Mapped[dict[str, Any]] = mapped_column(Json)
    """By column: `[before, after]`. A deleted task is whole in it, so that it can be made again."""

    __table_args__ = (Index("ix_task_changes_task", "task_id", "id"), {"sqlite_autoincrement": True})
