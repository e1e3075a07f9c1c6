"""`content_pool`: contents that are ready to go out, and when each shall."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.types import SafeText, UtcDateTime


class PoolState(StrEnum):
    """Where an entry stands."""

    WAITING = "waiting"
    PUBLISHING = "publishing"
    """A scanner (`claimed_by`) has taken it and publishes it."""
    PUBLISHED = "published"
    FAILED = "failed"
    """It could not be published; adding it again gives it another chance."""
    WITHDRAWN = "withdrawn"


_STATES = ", ".join(f"'{state.value}'" for state in PoolState)
_WAITING = "state = 'waiting'"


class PoolEntry(Base):
    """One content for one kind of place; it is in the pool once, whatever is repeated."""

    __tablename__ = "content_pool"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    content_id: Mapped[int] = mapped_column(ForeignKey("contents.id", ondelete="CASCADE"))
    target: Mapped[str] = mapped_column(String(20), server_default="directory", default="directory")
    """Where it goes, as the param of `publishing`."""
    priority: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    """A higher one goes first."""
    not_before: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    state: Mapped[str] = mapped_column(String(12), server_default="waiting", default="waiting")
    claimed_by: Mapped[int | None] = mapped_column(Integer)
    """The execution that published it last, or does so now. No foreign key: it outlives the history."""
    error: Mapped[str | None] = mapped_column(SafeText)
    """Why it could not be published."""
    added_by: Mapped[int | None] = mapped_column(Integer)
    """The execution that added it."""
    added_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        UniqueConstraint("content_id", "target", name="uq_content_pool_once"),
        Index(
            "ix_content_pool_waiting",
            "target",
            "priority",
            "not_before",
            sqlite_where=text(_WAITING),
            postgresql_where=text(_WAITING),
        ),
        {"sqlite_autoincrement": True},
    )
