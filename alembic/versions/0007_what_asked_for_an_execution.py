"""The trace that an execution continues: what asked for it, as W3C `traceparent`.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not Alembic's batch mode, which would lose AUTOINCREMENT and CHECKs on SQLite; and this rewrites no row.
    op.add_column("task_executions", sa.Column("trace_context", sa.String(55), nullable=True))


def downgrade() -> None:
    op.drop_column("task_executions", "trace_context")
