"""The engine and `SessionLocal`, and the few things SQLite must be told.

SQLite runs in WAL mode. Its connections read outside a transaction and take the write lock at the first
write (`BEGIN IMMEDIATE`), so a Session that read something long ago can still write: a deferred transaction
would fail at once with "database is locked" (SQLITE_BUSY_SNAPSHOT, which no timeout waits for).
"""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from app.core.config import Settings, get_settings
from app.core.errors import InvalidRequest

LOCK_TIMEOUT_SECONDS = 30.0

_PLAIN = ("SELECT", "INSERT", "UPDATE", "DELETE", "PRAGMA")
_HIDDEN_WRITE = re.compile(
    r"(\s|--[^\n]*(\n|$)|/\*.*?\*/)*"
    r"(insert|update|delete|replace|create|alter|drop|with\b.*\b(insert|replace)\s+(or\s+\w+\s+)?into\b"
    r"|with\b.*\b(update|delete\s+from)\b)",
    re.IGNORECASE | re.DOTALL,
)
"""What writes although Python's sqlite3, which looks at the first word only and not behind a comment, opens no
transaction for it. It would be committed at once, and stay when what it belongs to is rolled back."""


BY_KEY = {f"enable_{way}": "off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")}
"""PostgreSQL's settings for a session whose statements all look rows up by a key or walk an index. It keeps plans
of prepared statements: one that was made while the tables were small would go through all of them for a minute,
until autovacuum has counted them again."""


class Base(DeclarativeBase):
    """Declarative base. Constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")


def make_engine(settings: Settings, *, checks: bool = True) -> Engine:
    """An engine for `settings.database_url`, with room for every lane and the scheduler's own threads.

    `checks=False` lets SQLite skip CHECKs: for `journal_engine()`.

    Raises:
        InvalidRequest: the URL names another kind of database or driver, an in-memory SQLite database, which
            threads cannot share, or a `file:` URI.
    """
    url = make_url(settings.database_url)
    if url.drivername not in _DRIVERS:
        raise InvalidRequest.of(
            "DATABASE_URL",
            f"{url.drivername} is not supported; write sqlite:///data/contenthub.db or postgresql://user@host/name",
        )
    pool_size = settings.scheduler_concurrency + 8
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=pool_size, max_overflow=20, pool_pre_ping=True, hide_parameters=True)
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise InvalidRequest.of(
            "DATABASE_URL",
            "name a SQLite file by its path, as in sqlite:///data/app.db; threads cannot share one in memory",
        )
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=20,
        hide_parameters=True,  # an error's text goes to the log, and params hold secrets
        connect_args={"timeout": LOCK_TIMEOUT_SECONDS, "isolation_level": "IMMEDIATE"},
    )

    folder = Path(url.database).parent

    @event.listens_for(engine, "do_connect")
    def _make_folder(*_: Any) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest.of(
                "DATABASE_URL", f"its folder {folder} cannot be made: {error.strerror}; name another"
            ) from error

    @event.listens_for(engine, "connect")
    def _prepare(connection: DBAPIConnection, _record: Any) -> None:
        cursor = connection.cursor()
        _switch_to_wal(cursor)
        cursor.execute(f"PRAGMA synchronous={settings.sqlite_synchronous}")
        cursor.execute("PRAGMA foreign_keys=ON")
        if not checks:
            cursor.execute("PRAGMA ignore_check_constraints=ON")
        cursor.close()

    @event.listens_for(engine, "before_cursor_execute")
    def _begin_before_hidden_write(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(_PLAIN) and _HIDDEN_WRITE.match(statement):
            begin_write(connection)

    @event.listens_for(engine, "savepoint")
    def _begin_before_savepoint(connection: Connection, _name: str) -> None:
        # A SAVEPOINT outside a transaction would open one that its RELEASE commits.
        begin_write(connection)

    return engine


def journal_engine(engine: Engine, settings: Settings) -> Engine:
    """What the journal writes with: on SQLite an engine of its own, on the same file, that skips CHECKs.

    The CHECKs keep out what others write in plain SQL and the application could not read (`app/db/readable.py`).
    The journal's own values are made by the application's types; to look at them again is half of SQLite's work.
    """
    if engine.dialect.name != "sqlite":
        return engine
    url = engine.url.render_as_string(hide_password=False)
    return make_engine(settings.model_copy(update={"database_url": url}), checks=False)


def _switch_to_wal(cursor: DBAPICursor) -> None:
    """Of several processes that open a new file at once only one can switch it, and SQLite's busy timeout does
    not wait for that: try again until the others are through."""
    end = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def begin_write(connection: Connection) -> None:
    """Take the write lock now, where the database has one: what is read next stays true until commit.

    Raises:
        RuntimeError: the connection has been detached from its driver.
    """
    if connection.dialect.name != "sqlite":
        return
    driver = connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("a connection without its driver cannot take the write lock")
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def plan_by_key(connection: Connection) -> None:
    """Give the session of `connection` the settings `BY_KEY`, where the database has them."""
    if connection.dialect.name == "postgresql":
        for name, value in BY_KEY.items():
            connection.exec_driver_sql(f"SET SESSION {name} = {value}")
        connection.commit()  # a rollback would take them back


class _OwnSessions(sessionmaker[Session]):
    """Bound at the first use, not when it is imported: `app.client` takes this module to services of others, whose
    `DATABASE_URL` and `LOG_LEVEL` are not ours."""

    def __call__(self, **options: Any) -> Session:
        if self.kw["bind"] is None:
            configure(get_settings())
        return super().__call__(**options)


SessionLocal: sessionmaker[Session] = _OwnSessions(expire_on_commit=False)
"""Sessions on this process's database. `configure()` points it at another one."""


def configure(settings: Settings) -> Engine:
    """Bind `SessionLocal` to the database of `settings` and return its engine."""
    engine = make_engine(settings)
    SessionLocal.configure(bind=engine)
    return engine
