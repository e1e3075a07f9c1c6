"""`signing_keys`: secrets of this installation, the same in every process that has its database."""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import datetime

from sqlalchemy import String, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db.database import Base, begin_write
from app.db.types import UtcDateTime


class SigningKey(Base):
    """One secret, by what it signs."""

    __tablename__ = "signing_keys"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    key: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())


def signing_key(session: Session, name: str) -> str:
    """The secret of that name, made at its first use. Safe when several processes do that at once."""
    query = select(SigningKey.key).where(SigningKey.name == name)
    found = session.scalar(query)
    if found is not None:
        return found
    begin_write(session.connection())
    with suppress(IntegrityError), session.begin_nested():  # another process was faster
        session.add(SigningKey(name=name, key=secrets.token_urlsafe(48)))
    session.commit()
    return session.scalars(query).one()
