"""`nodes`: the processes that run an engine."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Integer, String, false
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.types import UtcDateTime


class Node(Base):
    """One process. It is alive while `beats` grows: a counter, so a stepped wall clock kills nobody."""

    __tablename__ = "nodes"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    """Hostname, boot and process namespace: two nodes with the same value can see each other's processes."""
    pid: Mapped[int] = mapped_column(Integer)
    role: Mapped[str] = mapped_column(String(20))
    engine: Mapped[str] = mapped_column(String(20))
    version: Mapped[str] = mapped_column(String(40))
    beats: Mapped[int] = mapped_column(Integer, server_default="0")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime)
    stopped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it stopped, or was found dead."""
    found_dead: Mapped[bool] = mapped_column(server_default=false())
    """It did not say goodbye: another node buried it."""
