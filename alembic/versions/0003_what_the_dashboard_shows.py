"""What the dashboard shows: the history of tasks, and which nodes were found dead.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_changes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("task_name", sa.String(200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_task_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_changes_task", "task_changes", ["task_id", "id"])
    with op.batch_alter_table("nodes", recreate="always" if _is_sqlite() else "never") as nodes:
        nodes.add_column(sa.Column("found_dead", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("nodes", recreate="always" if _is_sqlite() else "never") as nodes:
        nodes.drop_column("found_dead")
    op.drop_index("ix_task_changes_task", "task_changes")
    op.drop_table("task_changes")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
