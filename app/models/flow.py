"""`rate_limits`, `circuits`, `request_keys`: what processes share to let work through at a measure."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from sqlalchemy import CheckConstraint, Float, Index, Integer, String, Table, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.readable import refuse_unreadable
from app.db.types import UtcDateTime


class RateBucket(Base):
    """A bucket of tokens. Without a row it is full."""

    __tablename__ = "rate_limits"

    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    """`executor:TYPE`, `task:ID` or `request:KEY`, and `:VALUE` where the limit is by a param."""
    rate: Mapped[int] = mapped_column(Integer)
    per_seconds: Mapped[float] = mapped_column(Float)
    burst: Mapped[int] = mapped_column(Integer)
    tat: Mapped[datetime] = mapped_column(UtcDateTime)
    """Theoretical arrival time (GCRA): when the bucket will be full again. It never goes back by itself."""
    line_end: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The moment given to the last execution that was put off."""
    line_priority: Mapped[int] = mapped_column(Integer, server_default="0")
    """The lowest priority among those in line."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index("ix_rate_limits_line_end", "line_end"), Index("ix_rate_limits_tat", "tat"))


class CircuitState(Base):
    """The circuit breaker of one executor. Without a row it is closed and has heard nothing."""

    __tablename__ = "circuits"

    task_type: Mapped[str] = mapped_column(String(100), primary_key=True)
    state: Mapped[str] = mapped_column(String(10), server_default="closed")
    outcomes: Mapped[str] = mapped_column(Text, server_default="")
    """The last attempts, oldest first: `1` succeeded, `0` failed."""
    since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it came into this state; what attempts that began before bring says nothing."""
    probe_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Open or half open: when the next probes may start."""
    probes_left: Mapped[int] = mapped_column(Integer, server_default="0")
    successes: Mapped[int] = mapped_column(Integer, server_default="0")
    """Half open: probes that succeeded."""
    line_end: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The moment given to the last execution that was put off."""

    __table_args__ = (CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state"),)


class RequestKey(Base):
    """The latest request under a key of `Debounce`, `Throttle` or `Once`."""

    __tablename__ = "request_keys"

    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    task_type: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    execution_id: Mapped[int | None] = mapped_column(Integer)
    since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the first request that this one stands for came in."""
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """From then on the row says nothing, and may go."""

    __table_args__ = (
        CheckConstraint("kind IN ('debounce', 'throttle', 'once')", name="kind"),
        Index("ix_request_keys_expires_at", "expires_at"),
    )


for _model in (RateBucket, CircuitState, RequestKey):
    refuse_unreadable(cast("Table", _model.__table__))
