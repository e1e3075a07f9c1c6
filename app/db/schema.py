"""The schema is Alembic's; this brings a database to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from app.core.config import Settings
from app.core.errors import SchedulerUnavailable
from app.db.database import begin_write, make_engine

_UPGRADE_LOCK = 0x534348454D41
"""Key of PostgreSQL's advisory lock: of several processes that start at once, one migrates ("SCHEMA")."""


def migration_scripts() -> Path:
    """The folder of migrations: in a checkout beside `app`, in an installed wheel inside it."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_alembic"
    return installed if installed.is_dir() else package.parent / "alembic"


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, to run on `connection` where one is given."""
    config = Config()
    config.set_main_option("script_location", str(migration_scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(settings: Settings) -> None:
    """Bring the database of `settings` to the newest schema. Safe when several processes do it at once.

    Raises:
        SchedulerUnavailable: the database was migrated by a newer version of the code.
    """
    engine = make_engine(settings)
    try:
        if current_revision(engine) == head_revision():
            return
        with migration_lock(engine) as connection:
            refuse_newer(MigrationContext.configure(connection).get_current_revision())
            # Does nothing if another process was faster.
            command.upgrade(alembic_config(connection), "head")
    finally:
        engine.dispose()


def is_known(revision: str | None) -> bool:
    """Whether this version has that revision of the schema; if not, a newer version made it."""
    try:
        ScriptDirectory.from_config(alembic_config()).get_revision(revision or "base")
    except CommandError:
        return False
    return True


def refuse_newer(found: str | None) -> None:
    """Raises SchedulerUnavailable where the database was migrated by a newer version than this one."""
    if not is_known(found):
        raise SchedulerUnavailable(
            f"the database is at schema {found}, which this version does not know: "
            "it was migrated by a newer one; install that version"
        )


@contextmanager
def migration_lock(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else migrates; committed at the end.

    On SQLite foreign keys are off in it: to change a column there is to copy the table and drop the old one, and
    with foreign keys on, the drop takes along whatever refers to its rows. They are checked before the commit.

    Raises:
        SchedulerUnavailable: the migration would leave rows that refer to nothing; it was rolled back.
    """
    with engine.connect() as connection, _without_foreign_keys(connection):
        begin_write(connection)
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        yield connection
        if orphans := _tables_with_orphans(connection):
            raise SchedulerUnavailable(
                f"the migration would leave rows in {', '.join(orphans)} that refer to nothing; it was rolled back"
            )
        connection.commit()


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """Foreign keys off, on SQLite, which can switch them only between transactions."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        connection.rollback()
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")


def _tables_with_orphans(connection: Connection) -> list[str]:
    """Tables with rows whose foreign key leads nowhere. PostgreSQL lets none arise."""
    if connection.dialect.name != "sqlite":
        return []
    return sorted({row[0] for row in connection.exec_driver_sql("PRAGMA foreign_key_check")})


def current_revision(engine: Engine) -> str | None:
    """The schema the database is at; None: it has none."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head_revision() -> str:
    """The newest schema this code knows."""
    (head,) = ScriptDirectory.from_config(alembic_config()).get_heads()
    return head
