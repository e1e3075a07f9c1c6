"""The first schema

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), sa.Identity(always=False, start=2), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name=op.f("ck_api_tokens_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("name", name=op.f("uq_api_tokens_name")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("engine", sa.String(length=20), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("beats", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
    )
    op.create_table(
        "scheduled_tasks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("task_type", sa.String(length=100), nullable=False),
        sa.Column("params", sa.Text(), server_default="{}", nullable=False),
        sa.Column("schedule_type", sa.String(length=10), nullable=True),
        sa.Column("schedule_expression", sa.String(length=200), nullable=True),
        sa.Column("timezone", sa.String(length=64), server_default="UTC", nullable=False),
        sa.Column("dst_policy", sa.String(length=10), server_default="cron", nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("jitter_seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=True),
        sa.Column("retry", sa.Text(), nullable=True),
        sa.Column("misfire_policy", sa.String(length=10), server_default="latest", nullable=False),
        sa.Column("misfire_grace_seconds", sa.Float(), server_default="60", nullable=False),
        sa.Column("overlap_policy", sa.String(length=20), server_default="skip", nullable=False),
        sa.Column("concurrency_key", sa.String(length=200), nullable=True),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("next_run_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("exhausted_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("schedule_error", sa.Text(), nullable=True),
        sa.Column("last_run_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("last_state", sa.String(length=10), nullable=True),
        sa.Column("declared", sa.Text(), nullable=True),
        sa.Column("declaration_missing", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.CheckConstraint("dst_policy IN ('cron', 'skip')", name=op.f("ck_scheduled_tasks_dst_policy")),
        sa.CheckConstraint(
            "misfire_policy IN ('latest', 'all', 'skip')", name=op.f("ck_scheduled_tasks_misfire_policy")
        ),
        sa.CheckConstraint(
            "overlap_policy IN ('skip', 'queue', 'allow', 'cancel_running')",
            name=op.f("ck_scheduled_tasks_overlap_policy"),
        ),
        sa.CheckConstraint(
            "schedule_type IS NULL OR schedule_type IN ('cron', 'interval', 'at')",
            name=op.f("ck_scheduled_tasks_schedule_type"),
        ),
        sa.CheckConstraint(
            "(schedule_type IS NULL) = (schedule_expression IS NULL)", name=op.f("ck_scheduled_tasks_schedule")
        ),
        sa.CheckConstraint(
            "concurrency_limit IS NULL OR concurrency_limit >= 1",
            name=op.f("ck_scheduled_tasks_concurrency_limit"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scheduled_tasks")),
        sa.UniqueConstraint("name", name=op.f("uq_scheduled_tasks_name")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("scheduled_tasks", schema=None) as batch_op:
        batch_op.create_index(
            "ix_scheduled_tasks_due",
            ["next_run_at"],
            unique=False,
            sqlite_where=sa.text("is_active AND next_run_at IS NOT NULL"),
            postgresql_where=sa.text("is_active AND next_run_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_scheduled_tasks_unarmed",
            ["id"],
            unique=False,
            sqlite_where=sa.text(
                "is_active AND next_run_at IS NULL AND exhausted_at IS NULL AND schedule_error IS NULL AND schedule_type IS NOT NULL"
            ),
            postgresql_where=sa.text(
                "is_active AND next_run_at IS NULL AND exhausted_at IS NULL AND schedule_error IS NULL AND schedule_type IS NOT NULL"
            ),
        )

    op.create_table(
        "task_executions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("task_name", sa.String(length=200), nullable=True),
        sa.Column("task_type", sa.String(length=100), nullable=False),
        sa.Column("params", sa.Text(), server_default="{}", nullable=False),
        sa.Column("state", sa.String(length=10), server_default="pending", nullable=False),
        sa.Column("reason", sa.String(length=30), nullable=True),
        sa.Column("trigger", sa.String(length=20), server_default="api", nullable=False),
        sa.Column("triggered_by", sa.String(length=200), nullable=True),
        sa.Column("scheduled_for", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("first_fire_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("fire_count", sa.Integer(), server_default="1", nullable=False),
        sa.Column(
            "run_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rescues", sa.Integer(), server_default="0", nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("retry", sa.Text(), nullable=True),
        sa.Column("timeout_seconds", sa.Float(), nullable=True),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("concurrency_key", sa.String(length=200), nullable=True),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("exclusive", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column(
            "cancel_requested_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True
        ),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("duration_seconds", sa.Float(), nullable=True),
        sa.Column("progress", sa.Float(), nullable=True),
        sa.Column("progress_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'retrying', 'parked', 'success', 'failed', 'cancelled', 'skipped')",
            name=op.f("ck_task_executions_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_executions")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_task_executions_idempotency_key")),
        sa.UniqueConstraint("task_id", "scheduled_for", name="uq_task_executions_fire"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("task_executions", schema=None) as batch_op:
        batch_op.create_index(
            "ix_task_executions_active_task",
            ["task_id"],
            unique=False,
            sqlite_where=sa.text("state IN ('pending', 'retrying', 'running')"),
            postgresql_where=sa.text("state IN ('pending', 'retrying', 'running')"),
        )
        batch_op.create_index(
            "ix_task_executions_claimable",
            ["priority", "run_at"],
            unique=False,
            sqlite_where=sa.text("owner IS NULL AND state IN ('pending', 'retrying')"),
            postgresql_where=sa.text("owner IS NULL AND state IN ('pending', 'retrying')"),
        )
        batch_op.create_index(
            "ix_task_executions_finished",
            ["finished_at"],
            unique=False,
            sqlite_where=sa.text("finished_at IS NOT NULL"),
            postgresql_where=sa.text("finished_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_task_executions_owned",
            ["owner"],
            unique=False,
            sqlite_where=sa.text("owner IS NOT NULL AND state IN ('pending', 'retrying', 'running')"),
            postgresql_where=sa.text("owner IS NOT NULL AND state IN ('pending', 'retrying', 'running')"),
        )
        batch_op.create_index(
            "ix_task_executions_running_key",
            ["concurrency_key"],
            unique=False,
            sqlite_where=sa.text("concurrency_key IS NOT NULL AND state = 'running'"),
            postgresql_where=sa.text("concurrency_key IS NOT NULL AND state = 'running'"),
        )
        batch_op.create_index("ix_task_executions_state", ["state", "id"], unique=False)
        batch_op.create_index("ix_task_executions_task", ["task_id", "id"], unique=False)

    op.create_table(
        "contents",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("topic", sa.Text(), server_default="", nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("word_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("source", sa.Text(), server_default="", nullable=False),
        sa.Column("execution_id", sa.Integer(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_contents_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contents")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("contents", schema=None) as batch_op:
        batch_op.create_index("ix_contents_account", ["account_id", "id"], unique=False)

    op.create_table(
        "execution_logs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("execution_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("logged_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=False),
        sa.Column("level", sa.String(length=20), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["task_executions.id"],
            name=op.f("fk_execution_logs_execution_id_task_executions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_execution_logs")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("execution_logs", schema=None) as batch_op:
        batch_op.create_index("ix_execution_logs_execution", ["execution_id", "id"], unique=False)

    op.create_table(
        "task_attempts",
        sa.Column("execution_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.String(length=30), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.Column("duration_seconds", sa.Float(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('running', 'success', 'failed')", name=op.f("ck_task_attempts_status")),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["task_executions.id"],
            name=op.f("fk_task_attempts_execution_id_task_executions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("execution_id", "number", name=op.f("pk_task_attempts")),
    )
    op.create_table(
        "publications",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("content_id", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=20), nullable=False),
        sa.Column("destination", sa.String(length=500), server_default="", nullable=False),
        sa.Column("location", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "published_at",
            sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite"),
            server_default=sa.func.current_timestamp(),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["content_id"], ["contents.id"], name=op.f("fk_publications_content_id_contents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_publications")),
        sa.UniqueConstraint("content_id", "target", "destination", name="uq_publications_once"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("publications", schema=None) as batch_op:
        batch_op.create_index("ix_publications_newest", ["target", "published_at", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("publications", schema=None) as batch_op:
        batch_op.drop_index("ix_publications_newest")

    op.drop_table("publications")
    op.drop_table("task_attempts")
    with op.batch_alter_table("execution_logs", schema=None) as batch_op:
        batch_op.drop_index("ix_execution_logs_execution")

    op.drop_table("execution_logs")
    with op.batch_alter_table("contents", schema=None) as batch_op:
        batch_op.drop_index("ix_contents_account")

    op.drop_table("contents")
    with op.batch_alter_table("task_executions", schema=None) as batch_op:
        batch_op.drop_index("ix_task_executions_task")
        batch_op.drop_index("ix_task_executions_state")
        batch_op.drop_index(
            "ix_task_executions_running_key",
            sqlite_where=sa.text("concurrency_key IS NOT NULL AND state = 'running'"),
            postgresql_where=sa.text("concurrency_key IS NOT NULL AND state = 'running'"),
        )
        batch_op.drop_index(
            "ix_task_executions_owned",
            sqlite_where=sa.text("owner IS NOT NULL AND state IN ('pending', 'retrying', 'running')"),
            postgresql_where=sa.text("owner IS NOT NULL AND state IN ('pending', 'retrying', 'running')"),
        )
        batch_op.drop_index(
            "ix_task_executions_finished",
            sqlite_where=sa.text("finished_at IS NOT NULL"),
            postgresql_where=sa.text("finished_at IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_task_executions_claimable",
            sqlite_where=sa.text("owner IS NULL AND state IN ('pending', 'retrying')"),
            postgresql_where=sa.text("owner IS NULL AND state IN ('pending', 'retrying')"),
        )
        batch_op.drop_index(
            "ix_task_executions_active_task",
            sqlite_where=sa.text("state IN ('pending', 'retrying', 'running')"),
            postgresql_where=sa.text("state IN ('pending', 'retrying', 'running')"),
        )

    op.drop_table("task_executions")
    with op.batch_alter_table("scheduled_tasks", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_scheduled_tasks_unarmed",
            sqlite_where=sa.text(
                "is_active AND next_run_at IS NULL AND exhausted_at IS NULL AND schedule_error IS NULL AND schedule_type IS NOT NULL"
            ),
            postgresql_where=sa.text(
                "is_active AND next_run_at IS NULL AND exhausted_at IS NULL AND schedule_error IS NULL AND schedule_type IS NOT NULL"
            ),
        )
        batch_op.drop_index(
            "ix_scheduled_tasks_due",
            sqlite_where=sa.text("is_active AND next_run_at IS NOT NULL"),
            postgresql_where=sa.text("is_active AND next_run_at IS NOT NULL"),
        )

    op.drop_table("scheduled_tasks")
    op.drop_table("nodes")
    op.drop_table("api_tokens")
    op.drop_table("accounts")
