"""What the code relies on in its databases, each fact proven on the real thing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, Integer, MetaData, Table, func, insert, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.core.errors import InvalidRequest
from app.db.database import begin_write, make_engine
from app.db.types import Json, SafeText, UtcDateTime
from app.models import Account, ScheduledTask

SAMPLES = Table(
    "samples",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("moment", UtcDateTime, server_default=func.current_timestamp()),
    Column("document", Json),
    Column("note", SafeText),
)
SHANGHAI = timezone(timedelta(hours=8))
NINE = datetime(2030, 1, 7, 9, tzinfo=UTC)
MOMENTS = st.datetimes(
    datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.timezones(),
)
"""Any moment, in any zone, that exists in UTC too."""


@pytest.fixture
def samples(engine: Engine) -> Engine:
    """An engine on a database with a table of our column types."""
    SAMPLES.create(engine)
    return engine


def stored(engine: Engine, column: Column[Any], value: Any) -> Any:
    """`value` after a way through the database and back."""
    with engine.begin() as connection:
        key = connection.execute(insert(SAMPLES).values({column.name: value})).inserted_primary_key
        assert key is not None
    with engine.connect() as connection:
        return connection.execute(select(column).where(SAMPLES.c.id == key[0])).scalar_one()


def pragma(engine: Engine, name: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar_one()


class TestSqlite:
    @pytest.fixture
    def settings(self, sqlite_url: str) -> Settings:
        return Settings(database_url=sqlite_url)

    @pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
    def test_runs_in_wal_and_as_synchronous_as_the_settings_say(
        self, sqlite_url: str, synchronous: Any, level: int
    ) -> None:
        engine = make_engine(Settings(database_url=sqlite_url, sqlite_synchronous=synchronous))
        assert pragma(engine, "journal_mode") == "wal"
        assert pragma(engine, "synchronous") == level
        engine.dispose()

    @pytest.mark.parametrize(
        "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
    )
    def test_a_database_in_memory_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidRequest, match="DATABASE_URL"):
            make_engine(Settings(database_url=url))

    def test_the_folder_of_the_file_is_made_at_the_first_connection(self, tmp_path: Path) -> None:
        folder = tmp_path / "not" / "there"
        engine = make_engine(Settings(database_url=f"sqlite:///{folder / 'contenthub.db'}"))
        assert not folder.exists()
        assert pragma(engine, "journal_mode") == "wal"
        assert folder.is_dir()
        engine.dispose()

    def test_a_session_that_read_long_ago_can_still_write(self, sessions: sessionmaker[Session]) -> None:
        """In a deferred transaction this fails at once: "database is locked"."""
        with sessions() as early, sessions() as other:
            assert early.scalar(select(func.count()).select_from(Account)) == 0
            other.add(Account(name="other"))
            other.commit()
            early.add(Account(name="early"))
            early.commit()
            assert early.scalar(select(func.count()).select_from(Account)) == 2

    def test_a_reader_is_not_held_up_by_a_writer(self, sessions: sessionmaker[Session]) -> None:
        with sessions() as writer, sessions() as reader:
            writer.add(Account(name="not yet"))
            writer.flush()
            assert reader.scalar(select(func.count()).select_from(Account)) == 0
            writer.commit()
            assert reader.scalar(select(func.count()).select_from(Account)) == 1

    def test_a_write_lock_keeps_other_writers_out(self, sqlite_url: str, engine: Engine) -> None:
        impatient = sa.create_engine(sqlite_url, connect_args={"timeout": 0})
        with engine.connect() as holder, impatient.connect() as other:
            begin_write(holder)
            begin_write(holder)  # a second time is no error
            with pytest.raises(OperationalError, match="locked"):
                begin_write(other)
            holder.rollback()
            begin_write(other)
        impatient.dispose()

    def test_a_savepoint_at_the_start_of_a_transaction_is_part_of_it(
        self, sessions: sessionmaker[Session]
    ) -> None:
        """To SQLite a SAVEPOINT outside a transaction is one, and its RELEASE a commit."""
        with sessions() as session:
            with session.begin_nested():
                session.add(Account(name="inside"))
            session.rollback()
            assert session.scalar(select(func.count()).select_from(Account)) == 0

    def test_moments_are_text_that_a_person_can_read_and_write(self, samples: Engine) -> None:
        with samples.begin() as connection:
            connection.execute(insert(SAMPLES).values(moment=NINE))
            connection.execute(text("INSERT INTO samples (moment) VALUES ('2030-01-07 09:00:01')"))
        with samples.connect() as connection:
            texts = connection.execute(text("SELECT moment FROM samples ORDER BY id")).scalars().all()
            moments = connection.execute(select(SAMPLES.c.moment).order_by(SAMPLES.c.moment)).scalars().all()
        assert texts[0] == "2030-01-07 09:00:00.000000"
        assert moments == [NINE, NINE + timedelta(seconds=1)]

    @given(st.lists(MOMENTS, min_size=2, max_size=5))
    def test_moments_sort_as_text_as_they_do_in_time(self, moments: list[datetime]) -> None:
        write = UtcDateTime().process_bind_param
        written = {moment.astimezone(UTC): write(moment, sqlite.dialect()) for moment in moments}
        assert [written[moment] for moment in sorted(written)] == sorted(written.values())


def test_foreign_keys_are_enforced(sessions: sessionmaker[Session]) -> None:
    with sessions() as session, pytest.raises(IntegrityError):
        session.execute(text("INSERT INTO contents (account_id, title, body) VALUES (4711, 't', 'b')"))


def test_a_savepoint_rolled_back_leaves_what_was_before_it(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        session.add(Account(id=7, name="before"))
        session.flush()
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(insert(Account).values(id=7, name="twice"))
        with session.begin_nested():
            session.add(Account(id=8, name="after"))
        session.commit()
        assert session.scalars(select(Account.id).order_by(Account.id)).all() == [7, 8]


def test_fifty_threads_lose_no_write(sessions: sessionmaker[Session]) -> None:
    """Each reads a counter under the write lock, and writes it and a row of its own."""
    with sessions() as session:
        counter = ScheduledTask(name="counter", task_type="work", priority=0)
        session.add(counter)
        session.commit()
        counter_id = counter.id

    def write_four_times(thread: int) -> None:
        for number in range(4):
            with sessions() as session:
                begin_write(session.connection())
                counter = session.get_one(ScheduledTask, counter_id, with_for_update=True)
                counter.priority += 1
                session.add(ScheduledTask(name=f"{thread}-{number}", task_type="work"))
                session.commit()

    with ThreadPoolExecutor(50) as threads:
        list(threads.map(write_four_times, range(50)))
    with sessions() as session:
        assert session.get_one(ScheduledTask, counter_id).priority == 200
        assert session.scalar(select(func.count()).select_from(ScheduledTask)) == 201


@pytest.mark.parametrize(
    "moment",
    [
        NINE,
        NINE.replace(microsecond=1),
        datetime(2030, 1, 7, 17, tzinfo=SHANGHAI),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_moment_comes_back_aware_and_in_utc(samples: Engine, moment: datetime) -> None:
    found = stored(samples, SAMPLES.c.moment, moment)
    assert found == moment
    assert found.tzinfo is UTC


def test_the_default_of_the_database_is_utc_and_aware(samples: Engine) -> None:
    before = datetime.now(UTC)
    stored(samples, SAMPLES.c.note, "at the database's own time")
    with samples.connect() as connection:
        found = connection.execute(select(SAMPLES.c.moment)).scalar_one()
    assert found.tzinfo is UTC
    # SQLite's CURRENT_TIMESTAMP leaves out the fraction.
    assert before.replace(microsecond=0) <= found <= datetime.now(UTC)


def test_a_naive_moment_is_refused(samples: Engine) -> None:
    with pytest.raises(StatementError, match="naive datetime"):
        stored(samples, SAMPLES.c.moment, NINE.replace(tzinfo=None))


@pytest.mark.parametrize(
    "document",
    [
        {"text": "zero \x00 byte", "\x00": 1},
        {"text": "内容 \U0001f600", "": None},
        2**200,
        -0.1,
        1e300,
        [],
        "",
        False,
    ],
)
def test_json_comes_back_as_it_was(samples: Engine, document: Any) -> None:
    assert stored(samples, SAMPLES.c.document, document) == document


def test_json_keeps_the_order_of_keys(samples: Engine) -> None:
    assert list(stored(samples, SAMPLES.c.document, {"z": 1, "a": 2, "m": 3})) == ["z", "a", "m"]


def test_numbers_that_json_does_not_have_are_written_as_words(samples: Engine) -> None:
    odd = [float("nan"), float("inf"), float("-inf")]
    assert stored(samples, SAMPLES.c.document, odd) == ["NaN", "Infinity", "-Infinity"]


def test_no_document_is_null(samples: Engine) -> None:
    assert stored(samples, SAMPLES.c.document, None) is None
    with samples.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM samples WHERE document IS NULL")).scalar() == 1


@pytest.mark.parametrize("document", ["\ud800", {"\udfff": 1}, [object()]])
def test_what_is_no_json_is_refused_and_the_connection_goes_on(samples: Engine, document: Any) -> None:
    with samples.begin() as connection:
        with pytest.raises(StatementError):
            connection.execute(insert(SAMPLES).values(document=document))
        connection.execute(insert(SAMPLES).values(document="fine"))
    with samples.connect() as connection:
        assert connection.execute(select(SAMPLES.c.document)).scalars().all() == ["fine"]


@pytest.mark.parametrize(
    ("written", "read"),
    [("a\x00b", "a\ufffdb"), ("a\ud800b", "a\ufffdb"), ("内容 \U0001f600", "内容 \U0001f600"), (None, None)],
)
def test_text_from_outside_can_always_be_stored(samples: Engine, written: str | None, read: str | None) -> None:
    assert stored(samples, SAMPLES.c.note, written) == read
