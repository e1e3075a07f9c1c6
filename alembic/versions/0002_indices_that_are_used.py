"""Indices that are used.

SQLite takes a partial index only for a query that repeats the index's condition word for word: `is_active` became
`is_active = 1`, which is how the queries say it. Rows without a task leave the indices by task, and what
has succeeded, nearly everything, the index by state.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None

_ACTIVE = "state IN ('pending', 'retrying', 'running')"
_UNARMED = "next_run_at IS NULL AND exhausted_at IS NULL AND schedule_error IS NULL AND schedule_type IS NOT NULL"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _replace("ix_scheduled_tasks_due", ["next_run_at"], "is_active = 1 AND next_run_at IS NOT NULL")
        _replace("ix_scheduled_tasks_unarmed", ["id"], f"is_active = 1 AND {_UNARMED}")
    _replace("ix_task_executions_active_task", ["task_id", "state"], f"task_id IS NOT NULL AND {_ACTIVE}")
    _replace("ix_task_executions_task", ["task_id", "id"], "task_id IS NOT NULL")
    _replace("ix_task_executions_state", ["state", "id"], "state <> 'success'")
    _create("ix_task_executions_span", ["task_id", "scheduled_for"], "fire_count > 1")


def downgrade() -> None:
    op.drop_index("ix_task_executions_span", "task_executions")
    _replace("ix_task_executions_state", ["state", "id"], None)
    _replace("ix_task_executions_task", ["task_id", "id"], None)
    _replace("ix_task_executions_active_task", ["task_id"], _ACTIVE)
    if op.get_bind().dialect.name == "sqlite":
        _replace("ix_scheduled_tasks_unarmed", ["id"], f"is_active AND {_UNARMED}")
        _replace("ix_scheduled_tasks_due", ["next_run_at"], "is_active AND next_run_at IS NOT NULL")


def _replace(name: str, columns: list[str], where: str | None) -> None:
    op.drop_index(name, _table_of(name))
    _create(name, columns, where)


def _create(name: str, columns: list[str], where: str | None) -> None:
    condition = sa.text(where) if where is not None else None
    op.create_index(name, _table_of(name), columns, sqlite_where=condition, postgresql_where=condition)


def _table_of(index: str) -> str:
    return "scheduled_tasks" if index.startswith("ix_scheduled_tasks_") else "task_executions"
