"""Tasks in trouble are found by indices, however many tasks there are.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels = None
depends_on = None

_INDICES = {
    "ix_scheduled_tasks_broken": ("id", "schedule_error IS NOT NULL"),
    "ix_scheduled_tasks_failing": ("id", "last_state = 'failed'"),
    "ix_scheduled_tasks_type": ("task_type", None),
}


def upgrade() -> None:
    for name, (column, condition) in _INDICES.items():
        more = f" AND {condition}" if condition else ""
        op.create_index(
            name,
            "scheduled_tasks",
            [column],
            sqlite_where=sa.text("is_active = 1" + more),
            postgresql_where=sa.text("is_active" + more),
        )


def downgrade() -> None:
    for name in _INDICES:
        op.drop_index(name, "scheduled_tasks")
