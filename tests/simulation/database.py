"""One SQLite database in memory, shared by all nodes; it keeps an account of its own of every move."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, event
from sqlalchemy.orm import registry
from sqlalchemy.pool import StaticPool

from app.db.database import Base, begin_write

AUDIT = """
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, at REAL, execution_id INTEGER, task_id INTEGER,
    old_state TEXT, new_state TEXT, old_attempt INTEGER, new_attempt INTEGER,
    concurrency_key TEXT, concurrency_limit INTEGER, exclusive INTEGER, cancel INTEGER,
    old_owner TEXT
);
CREATE TABLE effects (execution_id INTEGER, attempt INTEGER);
CREATE TABLE rewrites (execution_id INTEGER, attempt INTEGER, old_status TEXT, new_status TEXT);
CREATE TRIGGER audit_insert AFTER INSERT ON task_executions BEGIN
    INSERT INTO audit VALUES (
        NULL, world_time(), NEW.id, NEW.task_id, NULL, NEW.state, 0, NEW.attempt,
        NEW.concurrency_key, NEW.concurrency_limit, NEW.exclusive, NEW.cancel_requested_at IS NOT NULL, NULL);
END;
CREATE TRIGGER audit_update AFTER UPDATE ON task_executions
WHEN OLD.state <> NEW.state OR OLD.attempt <> NEW.attempt
     OR OLD.cancel_requested_at IS NOT NEW.cancel_requested_at BEGIN
    INSERT INTO audit VALUES (
        NULL, world_time(), NEW.id, NEW.task_id, OLD.state, NEW.state, OLD.attempt, NEW.attempt,
        NEW.concurrency_key, NEW.concurrency_limit, NEW.exclusive, NEW.cancel_requested_at IS NOT NULL,
        OLD.owner);
END;
CREATE TRIGGER attempt_rewritten AFTER UPDATE OF status ON task_attempts WHEN OLD.status <> 'running' BEGIN
    INSERT INTO rewrites VALUES (NEW.execution_id, NEW.number, OLD.status, NEW.status);
END;
"""
"""Written by the database itself, in the same transaction as the move: no code under test can leave it out."""


@dataclass
class Effect:
    """What a successful attempt leaves behind. Pending in its Session until that is committed: an executor's
    statement would open a transaction on the one connection of all processes, and another one's commit keep it."""

    execution_id: int
    attempt: int


registry().map_imperatively(
    Effect,
    Table(
        "effects",
        MetaData(),
        Column("execution_id", Integer, primary_key=True),
        Column("attempt", Integer, primary_key=True),
    ),
)


class Crashed(BaseException):  # not an Exception: like a kill, it passes through every `except Exception`
    """The process that runs this code is gone."""


class SharedDatabase:
    """The database. `world_time` tells the true time in seconds."""

    def __init__(self, world_time: Callable[[], float], *, with_fire_constraint: bool) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level="IMMEDIATE", check_same_thread=False)
        self.raw.create_function("world_time", 0, world_time)
        engine = self.engine_for(lambda: None, lambda: None)
        _tables(with_fire_constraint=with_fire_constraint).create_all(engine)
        self.raw.executescript(AUDIT)

    def engine_for(self, check: Callable[[], None], around_commit: Callable[[], None]) -> Engine:
        """An engine for one process. `check` is called before each use, `around_commit` before and after each
        commit; either may raise `Crashed`."""
        engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            creator=lambda: _Connection(self.raw, check, around_commit),
        )

        @event.listens_for(engine, "savepoint")
        def _begin_before_savepoint(connection: Any, _name: str) -> None:
            begin_write(connection)

        return engine

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query by the checker, which knows nothing but the tables."""
        return self.raw.execute(query).fetchall()


class _Connection:
    """A driver connection of one process: the shared one, with the faults of that process at its commits."""

    def __init__(
        self, raw: sqlite3.Connection, check: Callable[[], None], around_commit: Callable[[], None]
    ) -> None:
        self._raw = raw
        self._check = check
        self._around_commit = around_commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def cursor(self, *arguments: Any) -> sqlite3.Cursor:
        self._check()
        cursor: sqlite3.Cursor = self._raw.cursor(*arguments)
        return cursor

    def commit(self) -> None:
        if not self._raw.in_transaction:
            return
        try:
            self._around_commit()
        except Crashed:
            self._raw.rollback()
            raise
        self._raw.commit()
        self._around_commit()

    def close(self) -> None:
        """The database outlives the process."""
        self._raw.rollback()


def _tables(*, with_fire_constraint: bool) -> MetaData:
    if with_fire_constraint:
        return Base.metadata
    copy = MetaData()
    for table in Base.metadata.sorted_tables:
        copied = table.to_metadata(copy)
        # Those for one dialect forget that in a copy.
        copied.constraints -= {one for one in copied.constraints if one.name == f"ck_{table.name}_readable"}
        copied.indexes -= {one for one in copied.indexes if one.name == "uq_task_executions_fire"}
    return copy
