"""Alerting: channels, rules, and the alerts they open.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels = None
depends_on = None

_READABLE = {
    ("alert_channels", "sqlite"): (
        "datetime(substr(created_at, 1, 19), '+0 days') IS substr(created_at, 1, 19) AND "
        "(created_at IS NULL OR substr(created_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(updated_at, 1, 19), '+0 days') IS substr(updated_at, 1, 19) AND "
        "(updated_at IS NULL OR substr(updated_at, 20) NOT GLOB '*[^.0-9]*')"
    ),
    ("alert_rules", "sqlite"): (
        "typeof(task_id) IN ('integer', 'null') AND "
        "(condition IS NULL OR (json_valid(condition) AND json_type(condition) = 'object')) AND "
        "typeof(remind_seconds) IN ('integer', 'real', 'null') AND "
        "typeof(check_seconds) IN ('integer', 'real', 'null') AND "
        "datetime(substr(silenced_until, 1, 19), '+0 days') IS substr(silenced_until, 1, 19) AND "
        "(silenced_until IS NULL OR substr(silenced_until, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(next_check_at, 1, 19), '+0 days') IS substr(next_check_at, 1, 19) AND "
        "(next_check_at IS NULL OR substr(next_check_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(created_at, 1, 19), '+0 days') IS substr(created_at, 1, 19) AND "
        "(created_at IS NULL OR substr(created_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(updated_at, 1, 19), '+0 days') IS substr(updated_at, 1, 19) AND "
        "(updated_at IS NULL OR substr(updated_at, 20) NOT GLOB '*[^.0-9]*')"
    ),
    ("alert_rules", "postgresql"): ("(condition IS NULL OR json_typeof(CAST(condition AS json)) = 'object')"),
    ("alerts", "sqlite"): (
        "typeof(rule_id) IN ('integer', 'null') AND "
        "typeof(task_id) IN ('integer', 'null') AND "
        "(details IS NULL OR (json_valid(details) AND json_type(details) = 'object')) AND "
        "datetime(substr(opened_at, 1, 19), '+0 days') IS substr(opened_at, 1, 19) AND "
        "(opened_at IS NULL OR substr(opened_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(resolved_at, 1, 19), '+0 days') IS substr(resolved_at, 1, 19) AND "
        "(resolved_at IS NULL OR substr(resolved_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(acknowledged_at, 1, 19), '+0 days') IS substr(acknowledged_at, 1, 19) AND "
        "(acknowledged_at IS NULL OR substr(acknowledged_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(last_notified_at, 1, 19), '+0 days') IS substr(last_notified_at, 1, 19) AND "
        "(last_notified_at IS NULL OR substr(last_notified_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "typeof(notices) IN ('integer', 'null')"
    ),
    ("alerts", "postgresql"): ("(details IS NULL OR json_typeof(CAST(details AS json)) = 'object')"),
}


def upgrade() -> None:
    op.create_table(
        "alert_channels",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("language", sa.String(2), server_default="zh", nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.true(), nullable=False),
        _moment("created_at", now=True),
        _moment("updated_at", now=True),
        sa.CheckConstraint("language IN ('en', 'zh')", name=op.f("ck_alert_channels_language")),
        *_readable("alert_channels"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_channels")),
        sa.UniqueConstraint("name", name=op.f("uq_alert_channels_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "alert_rules",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("condition", sa.Text(), server_default="{}", nullable=False),
        sa.Column("severity", sa.String(10), server_default="warning", nullable=False),
        sa.Column("remind_seconds", sa.Float(), nullable=True),
        sa.Column("notify_recovery", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("quiet_from", sa.String(5), nullable=True),
        sa.Column("quiet_until", sa.String(5), nullable=True),
        sa.Column("quiet_timezone", sa.String(64), server_default="UTC", nullable=False),
        sa.Column("check_seconds", sa.Float(), server_default="30", nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.true(), nullable=False),
        _moment("silenced_until"),
        _moment("next_check_at", now=True),
        _moment("created_at", now=True),
        _moment("updated_at", now=True),
        sa.CheckConstraint(
            "kind IN ('failed', 'late', 'slow', 'no_success', 'parked')", name=op.f("ck_alert_rules_kind")
        ),
        sa.CheckConstraint("severity IN ('warning', 'critical')", name=op.f("ck_alert_rules_severity")),
        sa.CheckConstraint("(quiet_from IS NULL) = (quiet_until IS NULL)", name=op.f("ck_alert_rules_quiet")),
        sa.CheckConstraint("check_seconds >= 1", name=op.f("ck_alert_rules_check_seconds")),
        *_readable("alert_rules"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_rules")),
        sa.UniqueConstraint("name", name=op.f("uq_alert_rules_name")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_alert_rules_due",
        "alert_rules",
        ["next_check_at"],
        sqlite_where=sa.text("is_active = 1"),
        postgresql_where=sa.text("is_active"),
    )
    op.create_table(
        "alert_rule_channels",
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.Column("channel_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rule_id"],
            ["alert_rules.id"],
            name=op.f("fk_alert_rule_channels_rule_id_alert_rules"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["channel_id"],
            ["alert_channels.id"],
            name=op.f("fk_alert_rule_channels_channel_id_alert_channels"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("rule_id", "channel_id", name=op.f("pk_alert_rule_channels")),
    )
    op.create_index("ix_alert_rule_channels_channel", "alert_rule_channels", ["channel_id"])
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.Column("rule_name", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("severity", sa.String(10), nullable=False),
        sa.Column("subject", sa.String(120), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("task_name", sa.String(200), nullable=True),
        sa.Column("details", sa.Text(), server_default="{}", nullable=False),
        _moment("opened_at", required=True),
        _moment("resolved_at"),
        sa.Column("resolution", sa.String(20), nullable=True),
        _moment("acknowledged_at"),
        sa.Column("acknowledged_by", sa.String(200), nullable=True),
        _moment("last_notified_at"),
        sa.Column("notices", sa.Integer(), server_default="0", nullable=False),
        *_readable("alerts"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["rule_id", "subject"],
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index("ix_alerts_task", "alerts", ["task_id", "id"])
    op.create_index(
        "ix_alerts_resolved",
        "alerts",
        ["resolved_at"],
        sqlite_where=sa.text("resolved_at IS NOT NULL"),
        postgresql_where=sa.text("resolved_at IS NOT NULL"),
    )


def downgrade() -> None:
    for table in ("alerts", "alert_rule_channels", "alert_rules", "alert_channels"):
        op.drop_table(table)


def _moment(name: str, *, now: bool = False, required: bool = False) -> sa.Column[object]:
    default = sa.func.current_timestamp() if now else None
    kind = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
    return sa.Column(name, kind, server_default=default, nullable=not (now or required))


def _readable(table: str) -> list[sa.CheckConstraint]:
    condition = _READABLE.get((table, op.get_bind().dialect.name))
    return [sa.CheckConstraint(condition, name=op.f(f"ck_{table}_readable"))] if condition else []
