"""The one writer: groups, isolation of a culprit, and outages."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from app.core.config import Settings
from app.core.errors import SchedulerUnavailable
from app.db import database
from app.db.database import make_engine
from app.scheduler.executions import Recorded, RecordExecution
from app.scheduler.journal import Journal, Step
from app.scheduler.requests import execution_values

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=database_url))
    yield engine
    engine.dispose()


@pytest.fixture
def journal(engine: Engine) -> Iterator[Journal]:
    journal = Journal(engine)
    yield journal
    journal.close()


def record(**changes: Any) -> RecordExecution:
    return RecordExecution(execution_values(NOW, task_type="work") | changes)


def stored(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM task_executions")) or 0


async def test_many_writers_share_few_commits(journal: Journal, engine: Engine) -> None:
    found = await asyncio.gather(*(journal.commit(record()) for _ in range(500)))
    assert len({recorded.execution.id for recorded in found}) == 500
    assert journal.writes_committed == 500
    assert journal.groups_committed < 100
    assert stored(engine) == 500


async def test_a_write_that_cannot_be_stored_fails_alone(journal: Journal, engine: Engine) -> None:
    held = threading.Event()
    journal.submit(_Hold(held))
    writes = [record(state="nonsense") if n == 7 else record() for n in range(20)]
    waiting = [asyncio.ensure_future(journal.commit(write)) for write in writes]
    await asyncio.sleep(0.05)
    held.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [n for n, outcome in enumerate(found) if isinstance(outcome, BaseException)] == [7]
    assert stored(engine) == 19


class _Hold:
    """Keeps the writer busy until told otherwise, so that what follows makes one group."""

    rank = None
    must_land = False

    def __init__(self, until: threading.Event) -> None:
        self.until = until

    @classmethod
    def apply_all(cls, _connection: Connection, writes: Any) -> list[None]:
        for write in writes:
            write.until.wait(10)
        return [None]


async def test_a_step_that_raises_leaves_nothing_and_tells_its_caller(journal: Journal, engine: Engine) -> None:
    def half(connection: Connection) -> None:
        connection.execute(text("INSERT INTO task_executions (task_type) VALUES ('x')"))
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await journal.step(half)
    assert stored(engine) == 0


class _Panic(BaseException):
    """As pyo3's: no `Exception`."""


@pytest.mark.parametrize("error", [_Panic("no memory"), MemoryError(), SystemExit(3)], ids=repr)
async def test_whatever_a_write_raises_fails_that_write_alone_and_the_writer_goes_on(
    journal: Journal, engine: Engine, error: BaseException
) -> None:
    def broken(connection: Connection) -> None:
        connection.execute(text("UPDATE task_executions SET message = 'half'"))
        raise error

    def answer_badly(*_: object) -> None:
        raise error

    held = threading.Event()
    journal.submit(_Hold(held), answer_badly)
    writes = [record(), record(), Step(broken), record(), Step(lambda _: 5)]
    waiting = [asyncio.ensure_future(journal.commit(write)) for write in writes]
    await asyncio.sleep(0.05)
    held.set()
    found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert [isinstance(outcome, BaseException) for outcome in found] == [False, False, True, False, False]
    assert type(error).__name__ in repr(found[2])
    await asyncio.wait_for(journal.commit(record()), 10)
    assert stored(engine) == 4
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM task_executions WHERE message = 'half'")) == 0


async def test_on_stored_is_called_also_when_the_caller_has_gone(journal: Journal) -> None:
    told = threading.Event()
    held = threading.Event()
    journal.submit(_Hold(held))
    waiting = asyncio.ensure_future(journal.commit(record(), lambda _recorded: told.set()))
    await asyncio.sleep(0.02)
    waiting.cancel()
    held.set()
    assert await asyncio.to_thread(told.wait, 10)


async def test_it_writes_again_after_it_was_closed(journal: Journal, engine: Engine) -> None:
    await journal.commit(record())
    await asyncio.to_thread(journal.close)
    await journal.commit(record())
    assert stored(engine) == 2


async def test_in_an_outage_requests_are_refused_and_results_land_later(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds SQLite's write lock for longer than we wait."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 0.2)
    engine = make_engine(Settings(database_url=sqlite_url))
    journal = Journal(engine)
    blocker = sqlite3.connect(tmp_path / "contenthub.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    landed = threading.Event()

    class _Result(RecordExecution):
        must_land = True

    journal.submit(_Result(execution_values(NOW, task_type="work")), lambda *_: landed.set())
    with pytest.raises(SchedulerUnavailable):
        await journal.commit(record())
    assert not landed.is_set()
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await asyncio.to_thread(landed.wait, 10)
    assert stored(engine) == 1
    journal.close()
    engine.dispose()


@pytest.mark.parametrize("code", ["25006", "40001", "53300", "55P03", "57014", "57P01"])
async def test_what_postgresql_does_not_take_just_now_lands_later(postgres_url: str, code: str) -> None:
    """It became read-only in a failover, has no connections left, or a time limit of the role was over. The result
    of work that is done must not be lost to that: the work would be done again."""
    engine = make_engine(Settings(database_url=postgres_url))
    journal = Journal(engine)
    tries = 0
    landed = threading.Event()

    class _Result(RecordExecution):
        must_land = True

        @classmethod
        def apply_all(cls, connection: Connection, writes: Sequence[RecordExecution]) -> Sequence[Recorded]:
            nonlocal tries
            tries += 1
            if tries < 4:
                connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$")
            return super().apply_all(connection, writes)

    journal.submit(
        _Result(execution_values(NOW, task_type="work")), lambda _, error: landed.set() if error is None else None
    )
    assert await asyncio.to_thread(landed.wait, 10)
    assert stored(engine) == 1
    journal.close()
    engine.dispose()
