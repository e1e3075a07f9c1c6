"""`accounts`, `contents`, `publications`: who publishes, what was written, where it went."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from sqlalchemy import ForeignKey, Identity, Index, Integer, String, UniqueConstraint, false, func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db.database import Base
from app.db.types import SafeText, UtcDateTime

DEFAULT_ACCOUNT_ID = 1
LARGEST_ID = 2**31 - 1
"""That an account or a content can have: PostgreSQL's INTEGER."""


class Account(Base):
    """In whose name content is written. Id 1 is the default account; the sequence starts behind it."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(Identity(start=DEFAULT_ACCOUNT_ID + 1), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())


class Content(Base):
    """One piece of writing, in Markdown."""

    __tablename__ = "contents"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    topic: Mapped[str] = mapped_column(SafeText, server_default="", default="")
    title: Mapped[str] = mapped_column(SafeText)
    body: Mapped[str] = mapped_column(SafeText)
    """Markdown (CommonMark and tables). Raw HTML in it is shown as text, never interpreted."""
    word_count: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    """Words of the rendered text; each CJK character counts as one."""
    source: Mapped[str] = mapped_column(SafeText, server_default="", default="")
    """What it was made from: a feed's address, a command's name, a model's name."""
    is_held: Mapped[bool] = mapped_column(server_default=false(), default=False)
    """It goes out by its id or by the pool, and not with all that are not published yet."""
    execution_id: Mapped[int | None] = mapped_column(Integer)
    """The execution that wrote it. No foreign key: content outlives the history."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())

    __table_args__ = (Index("ix_contents_account", "account_id", "id"), {"sqlite_autoincrement": True})


class Publication(Base):
    """One content, published at one place. The unique key is what makes publishing happen once."""

    __tablename__ = "publications"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    content_id: Mapped[int] = mapped_column(ForeignKey("contents.id", ondelete="CASCADE"))
    target: Mapped[str] = mapped_column(String(20))
    """The kind of place: directory, webhook."""
    destination: Mapped[str] = mapped_column(String(500), server_default="", default="")
    """Which one, where there may be several: the webhook's address; empty for the directory."""
    location: Mapped[str] = mapped_column(SafeText, server_default="", default="")
    """Where it can be found there: the page's file name, the receiver's address."""
    published_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())

    __table_args__ = (
        UniqueConstraint("content_id", "target", "destination", name="uq_publications_once"),
        Index("ix_publications_newest", "target", "published_at", "id"),
        {"sqlite_autoincrement": True},
    )


def ensure_default_account(session: Session) -> None:
    """Make sure account 1 exists; the caller commits. Safe when several processes boot at once."""
    if session.get(Account, DEFAULT_ACCOUNT_ID) is None:
        with suppress(IntegrityError), session.begin_nested():  # another process was faster
            session.add(Account(id=DEFAULT_ACCOUNT_ID, name="default"))
