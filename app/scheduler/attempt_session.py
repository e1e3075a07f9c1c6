"""The Session of an attempt: made when it is used, closed for good when the attempt is over.

Many executors never touch the Session they are handed, and to make one is a fifth of what a short attempt costs.
"""

from __future__ import annotations

from typing import Any

from loguru import logger
from sqlalchemy import Connection, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, sessionmaker


class _Unused(Session):
    """A Session that has not been used: the first look at it makes it what the sessionmaker makes."""

    def __getattribute__(self, name: str) -> Any:
        _set_up(self)
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _set_up(self)
        setattr(self, name, value)


class _Over(Session):
    """A Session that was never used, and whose attempt is over."""

    def __getattr__(self, name: str) -> Any:
        raise InvalidRequestError("this Session is closed: the attempt it was made for is over")


def open_session(sessions: sessionmaker[Session]) -> Session:
    """A Session for one attempt. Once closed, it can never be used again: a task or thread that the executor
    left behind could otherwise open another transaction with it, and on SQLite hold the write lock for ever."""
    session = _Unused.__new__(_Unused)
    _attributes(session)["_sessions"] = sessions
    return session


def discard(session: Session) -> None:
    """Roll back what is open and close the Session for good."""
    if type(session) is _Unused:
        _become(session, _Over)
        return
    if is_touched(session):
        roll_back(session)
    session.close()


def roll_back(session: Session) -> None:
    """Roll back, also where that fails (a lost connection, a Session left half-way): then drop the connection."""
    try:
        session.rollback()
    except Exception as error:  # noqa: BLE001 - the outcome is recorded elsewhere; this Session is thrown away
        logger.warning("会话回滚失败，其连接已丢弃: {}", error)
        session.invalidate()


def is_touched(session: Session) -> bool:
    """Whether there is anything to commit or to roll back."""
    return type(session) is not _Unused and (
        session.in_transaction() or bool(session.identity_map or session.new or session.deleted)
    )


def has_writes(session: Session) -> bool:
    """Whether committing `session` would change the database; what is pending is flushed to find out."""
    if not is_touched(session) or not session.in_transaction():
        return False
    session.flush()
    return is_writing(session.connection())


def is_pending(session: Session) -> bool:
    """Whether objects of a Session that has been used were added, changed or deleted, and not flushed yet."""
    return bool(session.new or session.deleted) or any(session.is_modified(one) for one in session.dirty)


def is_writing(connection: Connection) -> bool:
    """Whether committing its open transaction would change the database.

    On SQLite the driver knows: its transaction opens with the first write. PostgreSQL gives a transaction its
    number then; a lock of a row counts as a write.
    """
    if connection.dialect.name != "sqlite":
        return connection.scalar(text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")) is True
    driver = connection.connection.driver_connection
    return bool(driver is not None and driver.in_transaction)


def _set_up(session: Session) -> None:
    sessions: sessionmaker[Session] = _attributes(session).pop("_sessions")
    _become(session, sessions.class_)
    session.__init__(**{**sessions.kw, "close_resets_only": False})  # type: ignore[misc]  # as its maker does


def _attributes(session: Session) -> dict[str, Any]:
    """Its `__dict__`, without using it."""
    found: dict[str, Any] = object.__getattribute__(session, "__dict__")
    return found


def _become(session: Session, kind: type[Session]) -> None:
    object.__setattr__(session, "__class__", kind)
