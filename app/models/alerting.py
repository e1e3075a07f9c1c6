"""`alert_channels`, `alert_rules`, `alerts`: where to say it, when to say it, what was said."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CheckConstraint, Column, Float, ForeignKey, Index, Integer, String, Table, func, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.readable import refuse_unreadable
from app.db.types import Json, SafeText, UtcDateTime


class AlertChannel(Base):
    """One receiver."""

    __tablename__ = "alert_channels"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    url: Mapped[str] = mapped_column(SafeText)
    """An apprise URL. It is a secret: keys and passwords are part of it."""
    language: Mapped[str] = mapped_column(String(2), server_default="zh", default="zh")
    is_active: Mapped[bool] = mapped_column(server_default=true(), default=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())

    __table_args__ = (
        CheckConstraint("language IN ('en', 'zh')", name="language"),
        {"sqlite_autoincrement": True},
    )


class AlertRule(Base):
    """One condition, of one task or of all, and how to speak of it."""

    __tablename__ = "alert_rules"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    task_id: Mapped[int | None] = mapped_column(Integer)
    """NULL: every task, each with an alert of its own. No foreign key: a rule outlives its task, and is silent."""
    kind: Mapped[str] = mapped_column(String(20))
    condition: Mapped[dict[str, Any]] = mapped_column(Json, server_default="{}", default=dict)
    """The numbers of the kind's condition (`app/scheduler/alerting/conditions.py`); the rest has defaults."""
    severity: Mapped[str] = mapped_column(String(10), server_default="warning", default="warning")
    remind_seconds: Mapped[float | None] = mapped_column(Float)
    """NULL: one notice, and no reminder."""
    notify_recovery: Mapped[bool] = mapped_column(server_default=true(), default=True)
    quiet_from: Mapped[str | None] = mapped_column(String(5))
    quiet_until: Mapped[str | None] = mapped_column(String(5))
    """Wall times `HH:MM` in `quiet_timezone`; NULL: never quiet."""
    quiet_timezone: Mapped[str] = mapped_column(String(64), server_default="UTC", default="UTC")
    check_seconds: Mapped[float] = mapped_column(Float, server_default="30", default=30.0)
    is_active: Mapped[bool] = mapped_column(server_default=true(), default=True)
    silenced_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_check_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    """The guard: whoever moves it on has made the check that was due then."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())

    __table_args__ = (
        CheckConstraint("kind IN ('failed', 'late', 'slow', 'no_success', 'parked')", name="kind"),
        CheckConstraint("severity IN ('warning', 'critical')", name="severity"),
        CheckConstraint("(quiet_from IS NULL) = (quiet_until IS NULL)", name="quiet"),
        CheckConstraint("check_seconds >= 1", name="check_seconds"),
        Index(
            "ix_alert_rules_due",
            "next_check_at",
            sqlite_where=text("is_active = 1"),
            postgresql_where=text("is_active"),
        ),
        {"sqlite_autoincrement": True},
    )


alert_rule_channels = Table(
    "alert_rule_channels",
    Base.metadata,
    Column("rule_id", ForeignKey("alert_rules.id", ondelete="CASCADE"), primary_key=True),
    Column("channel_id", ForeignKey("alert_channels.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_alert_rule_channels_channel", "channel_id"),
)
"""Which rules speak on which channels."""


class Alert(Base):
    """One incident: open until its condition is over. It outlives its rule and its task."""

    __tablename__ = "alerts"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rule_id: Mapped[int] = mapped_column(Integer)
    rule_name: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(20))
    severity: Mapped[str] = mapped_column(String(10))
    subject: Mapped[str] = mapped_column(String(120))
    """What it is about, as a key: `task:7`, or `type:http_request` for executions of no task."""
    task_id: Mapped[int | None] = mapped_column(Integer)
    task_name: Mapped[str | None] = mapped_column(String(200))
    details: Mapped[dict[str, Any]] = mapped_column(Json, server_default="{}")
    """The numbers that the sentence is made of, as they were last seen."""
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    resolved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    resolution: Mapped[str | None] = mapped_column(String(20))
    """recovered, rule_paused, rule_deleted."""
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    acknowledged_by: Mapped[str | None] = mapped_column(String(200))
    last_notified_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    notices: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    """Notices handed to the channels: 0 while they are held."""

    __table_args__ = (
        Index(
            "uq_alerts_open",
            "rule_id",
            "subject",
            unique=True,
            sqlite_where=text("resolved_at IS NULL"),
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("ix_alerts_task", "task_id", "id"),
        Index(
            "ix_alerts_resolved",
            "resolved_at",
            sqlite_where=text("resolved_at IS NOT NULL"),
            postgresql_where=text("resolved_at IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )


for _model in (AlertChannel, AlertRule, Alert):
    refuse_unreadable(cast("Table", _model.__table__))
