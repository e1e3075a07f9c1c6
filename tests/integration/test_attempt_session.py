"""The Session of an attempt: a real one, made when it is used, closed for good at the end."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.db.database import journal_engine
from app.models.content import Account
from app.scheduler.attempt_session import discard, has_writes, is_touched, open_session


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    return sessionmaker(engine, expire_on_commit=False, info={"of": "a test"})


def test_an_untouched_session_is_a_session_and_takes_no_connection(sessions: sessionmaker[Session]) -> None:
    session = open_session(sessions)
    assert isinstance(session, Session)
    assert not is_touched(session)
    discard(session)


def test_even_its_info_is_there_at_the_first_look(sessions: sessionmaker[Session]) -> None:
    session = open_session(sessions)
    assert session.info == {"of": "a test"}
    discard(session)


def test_it_works_as_the_sessionmaker_made_it(sessions: sessionmaker[Session]) -> None:
    session = open_session(sessions)
    session.add(Account(name="mine"))
    assert is_touched(session)
    assert has_writes(session)
    assert session.info == {"of": "a test"}
    assert session.expire_on_commit is False
    session.commit()
    discard(session)
    with sessions() as another:
        assert another.query(Account).filter_by(name="mine").count() == 1


def test_what_is_set_on_it_first_stays(sessions: sessionmaker[Session]) -> None:
    session = open_session(sessions)
    session.autoflush = False
    session.add(Account(name="mine"))
    assert session.autoflush is False
    assert session.execute(text("SELECT count(*) FROM accounts WHERE name = 'mine'")).scalar() == 0
    discard(session)


def test_events_of_the_sessionmaker_and_of_the_session_are_heard(sessions: sessionmaker[Session]) -> None:
    heard: list[str] = []
    event.listen(sessions, "after_begin", lambda *_: heard.append("maker"))
    session = open_session(sessions)
    event.listen(session, "after_begin", lambda *_: heard.append("session"))
    session.execute(text("SELECT 1"))
    assert sorted(heard) == ["maker", "session"]
    discard(session)


@pytest.mark.parametrize("used", [False, True])
def test_once_discarded_it_can_never_be_used_again(sessions: sessionmaker[Session], *, used: bool) -> None:
    session = open_session(sessions)
    if used:
        session.execute(text("SELECT 1"))
    discard(session)
    with pytest.raises(InvalidRequestError):
        session.execute(text("SELECT 1"))


def test_only_the_journal_skips_checks(sqlite_url: str, engine: Engine) -> None:
    unreadable = text("INSERT INTO task_executions (task_type, created_at) VALUES ('x', 'yesterday')")
    if engine.dialect.name != "sqlite":
        assert journal_engine(engine, Settings()) is engine
        return
    writer = journal_engine(engine, Settings())
    with writer.connect() as connection:
        connection.execute(unreadable)
        connection.rollback()
    writer.dispose()
    with engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(unreadable)
