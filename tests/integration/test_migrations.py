"""The schema: migrations and models agree, and moving between revisions loses nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, inspect, text

import app.models  # noqa: F401
from app.core.config import Settings
from app.core.errors import SchedulerUnavailable
from app.db.database import Base, make_engine
from app.db.schema import alembic_config, current_revision, head_revision, migration_lock, upgrade

ROWS = (
    "INSERT INTO accounts (id, name) VALUES (1, 'one')",
    "INSERT INTO contents (account_id, title, body) VALUES (1, 'a title', 'a body')",
    "INSERT INTO scheduled_tasks (name, task_type) VALUES ('a task', 'work')",
    "INSERT INTO task_executions (task_type) VALUES ('work')",
    "INSERT INTO task_attempts (execution_id, number, node, status, started_at)"
    " VALUES (1, 1, 'n', 'success', '2030-01-01')",
)


@pytest.fixture
def engine(empty_database_url: str) -> Any:
    engine = make_engine(Settings(database_url=empty_database_url))
    yield engine
    engine.dispose()


def migrate(engine: Engine, revision: str, *, down: bool = False) -> None:
    with migration_lock(engine) as connection:
        (command.downgrade if down else command.upgrade)(alembic_config(connection), revision)


def contents_of(engine: Engine) -> dict[str, list[Any]]:
    found = MetaData()
    with engine.connect() as connection:
        found.reflect(connection)
        return {
            table.name: [tuple(row) for row in connection.execute(table.select())]
            for table in found.sorted_tables
            if table.name != "alembic_version"
        }


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": False})
    return list(compare_metadata(context, Base.metadata))


def test_migrations_make_what_the_models_say(engine: Engine) -> None:
    migrate(engine, "head")
    with engine.connect() as connection:
        assert differences(connection) == []


def test_the_migrated_schema_is_the_models_schema_to_the_letter(engine: Engine, tmp_path: Any) -> None:
    """Beyond what Alembic compares: server defaults, CHECKs, partial indexes, autoincrement."""
    if engine.dialect.name != "sqlite":
        pytest.skip("SQLite keeps the text of each definition; PostgreSQL's is compared by Alembic")
    migrate(engine, "head")
    from_models = make_engine(Settings(database_url=f"sqlite:///{tmp_path / 'models.db'}"))
    Base.metadata.create_all(from_models)

    def definitions(database: Engine) -> dict[str, list[str]]:
        with database.connect() as connection:
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
        return {
            name: sorted(line.strip(" ,\t") for line in sql.replace('"', "").splitlines())
            for name, sql in rows
            if name not in ("alembic_version", "sqlite_sequence")
        }

    assert definitions(engine) == definitions(from_models)
    from_models.dispose()


def test_plain_sql_may_leave_out_whatever_has_a_default(engine: Engine) -> None:
    migrate(engine, "head")
    with engine.begin() as connection:
        for statement in ROWS:
            connection.execute(text(statement))
    assert all(contents_of(engine)[table] for table in ("accounts", "contents", "scheduled_tasks", "task_attempts"))


def test_every_revision_goes_down_and_up_and_rows_of_surviving_tables_stay(engine: Engine) -> None:
    revisions = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()]
    migrate(engine, "head")
    with engine.begin() as connection:
        for statement in ROWS:
            connection.execute(text(statement))
    before = contents_of(engine)
    for _ in revisions:
        migrate(engine, "-1", down=True)
        remaining = contents_of(engine)
        assert all(remaining[table] == before[table] for table in remaining)
        migrate(engine, "+1")
        after = contents_of(engine)
        assert all(after[table] == before[table] for table in remaining)
        migrate(engine, "-1", down=True)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(engine, "head")
    assert current_revision(engine) == head_revision()


def test_upgrading_again_changes_nothing(empty_database_url: str) -> None:
    settings = Settings(database_url=empty_database_url)
    upgrade(settings)
    engine = make_engine(settings)
    with engine.begin() as connection:
        for statement in ROWS:
            connection.execute(text(statement))
    before = contents_of(engine)
    upgrade(settings)
    assert contents_of(engine) == before
    engine.dispose()


def test_processes_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    program = (
        "import sys; from app.core.config import Settings; from app.db.schema import upgrade; "
        f"upgrade(Settings(database_url={empty_database_url!r}))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    engine = make_engine(Settings(database_url=empty_database_url))
    assert current_revision(engine) == head_revision()
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(empty_database_url: str) -> None:
    settings = Settings(database_url=empty_database_url)
    upgrade(settings)
    engine = make_engine(settings)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchedulerUnavailable, match="newer"):
        upgrade(settings)
    assert current_revision(engine) == "9999"
    engine.dispose()
