"""What was suspended again is found by when it last ran, however many are suspended.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels = None
depends_on = None

_NAME = "ix_task_executions_suspended"
_SUSPENDED = sa.text("state = 'suspended'")


def upgrade() -> None:
    op.create_index(_NAME, "task_executions", ["started_at"], sqlite_where=_SUSPENDED, postgresql_where=_SUSPENDED)


def downgrade() -> None:
    op.drop_index(_NAME, "task_executions")
