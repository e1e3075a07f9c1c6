"""What an attempt's own Session has done, and how to be rid of it."""

from __future__ import annotations

from loguru import logger
from sqlalchemy import text
from sqlalchemy.orm import Session


def is_touched(session: Session) -> bool:
    """Whether there is anything to commit, roll back or close. For a third of a short attempt's time, an untouched
    Session would be closed in vain."""
    return session.in_transaction() or bool(session.identity_map or session.new or session.deleted)


def has_writes(session: Session) -> bool:
    """Whether committing `session` would change the database; what is pending is flushed to find out.

    On SQLite the driver knows: its transaction opens with the first write. PostgreSQL gives a transaction its
    number then; a lock of a row counts as a write.
    """
    if not session.in_transaction():
        return False
    session.flush()
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return connection.scalar(text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")) is True
    driver = connection.connection.driver_connection
    return bool(driver is not None and driver.in_transaction)


def discard(session: Session) -> None:
    """Roll back what is open and close the Session for good."""
    if is_touched(session):
        roll_back(session)
        session.close()
    else:
        session.bind = None  # closing one that was never used costs a third of a short attempt; this does as well


def roll_back(session: Session) -> None:
    """Roll back, also where that fails (a lost connection, a Session left half-way): then drop the connection."""
    try:
        session.rollback()
    except Exception as error:  # noqa: BLE001 - the outcome is recorded elsewhere; this Session is thrown away
        logger.warning("会话回滚失败，其连接已丢弃: {}", error)
        session.invalidate()
