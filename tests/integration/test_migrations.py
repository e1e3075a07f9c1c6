"""The schema: migrations and models agree, and moving between revisions loses nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, Table, inspect, text

import app.models  # noqa: F401 - completes the metadata
from app.core.config import Settings
from app.core.errors import SchedulerUnavailable
from app.db.database import Base, make_engine
from app.db.schema import alembic_config, current_revision, head_revision, migration_lock, upgrade

NOON = "2030-01-07 12:00:00"

ROWS: dict[str, dict[str, Any]] = {
    "accounts": {"id": 1, "name": "one"},
    "alert_channels": {"name": "hook", "url": "json://example.org"},
    "alert_rule_channels": {"rule_id": 1, "channel_id": 1},
    "alert_rules": {"name": "thrice", "kind": "failed"},
    "alerts": {
        "rule_id": 1,
        "rule_name": "thrice",
        "kind": "failed",
        "severity": "warning",
        "subject": "task:1",
        "opened_at": NOON,
    },
    "api_tokens": {"name": "ops", "role": "viewer", "token_hash": "0" * 64},
    "circuits": {"task_type": "work"},
    "content_pool": {"content_id": 1},
    "contents": {"account_id": 1, "title": "a title", "body": "a body"},
    "execution_logs": {
        "execution_id": 1,
        "attempt": 1,
        "logged_at": NOON,
        "level": "INFO",
        "message": "a line",
    },
    "execution_signals": {"execution_id": 1, "name": "approved"},
    "execution_steps": {"execution_id": 1, "kind": "step", "name": "draft", "attempt": 1, "started_at": NOON},
    "nodes": {
        "id": "n",
        "host": "h",
        "pid": 1,
        "role": "all",
        "engine": "embedded",
        "version": "0",
        "started_at": NOON,
        "heartbeat_at": NOON,
    },
    "publications": {"content_id": 1, "target": "directory"},
    "rate_limits": {"key": "k", "rate": 1, "per_seconds": 1.5, "burst": 1, "tat": NOON, "updated_at": NOON},
    "request_keys": {"kind": "once", "task_type": "work", "key": "k"},
    "scheduled_tasks": {"name": "a task", "task_type": "work"},
    "signing_keys": {"name": "links", "key": "k"},
    "task_attempts": {"execution_id": 1, "number": 1, "node": "n", "status": "success", "started_at": NOON},
    "task_changes": {
        "task_id": 1,
        "task_name": "a task",
        "version": 1,
        "action": "create",
        "changed_by": "cli",
        "changed_at": NOON,
        "changes": "{}",
    },
    "task_executions": {"task_type": "work"},
}
"""A row for every table, with no more than the columns that must be given. A new table needs one here."""


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(Settings(database_url=empty_database_url))
    yield engine
    engine.dispose()


@pytest.fixture
def migrated(engine: Engine) -> Engine:
    """A database at the newest revision with a row in every table, all written in plain SQL."""
    migrate(engine, "head")
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            row = ROWS[table.name]
            values = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table.name} ({', '.join(row)}) VALUES ({values})"), row)
    return engine


def migrate(engine: Engine, revision: str, *, down: bool = False) -> None:
    with migration_lock(engine) as connection:
        (command.downgrade if down else command.upgrade)(alembic_config(connection), revision)


def tables_of(engine: Engine) -> list[Table]:
    found = MetaData()
    found.reflect(engine)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def rows_of(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in tables_of(engine)
        }


def assert_kept(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]) -> None:
    """The rows of tables that are in both are the same, as far as the columns are in both."""
    for table in before.keys() & after.keys():
        assert len(after[table]) == len(before[table]), table
        for old, new in zip(before[table], after[table], strict=True):
            shared = old.keys() & new.keys()
            assert {name: new[name] for name in shared} == {name: old[name] for name in shared}, table


def definitions(engine: Engine) -> dict[str, Any]:
    """The schema in the database's own words, without the order of columns and constraints."""
    queries = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL",
        "postgresql": """
            SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL
            SELECT conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
            UNION ALL
            SELECT table_name || '.' || column_name,
                   concat_ws(' ', data_type, character_maximum_length, is_nullable, column_default, identity_start)
            FROM information_schema.columns WHERE table_schema = 'public'
        """,
    }
    with engine.connect() as connection:
        rows = connection.execute(text(queries[engine.dialect.name])).all()
    return {
        # SQLite writes a column that was added into the line of the one before it.
        name: sorted(line.strip(" ,\t") for line in re.split(r"\n|, (?=[a-z_]+ [A-Z])", sql.replace('"', "")))
        for name, sql in rows
        if "alembic_version" not in name and name != "sqlite_sequence"
    }


def test_alembic_finds_nothing_to_add_to_the_migrations(engine: Engine) -> None:
    migrate(engine, "head")
    with migration_lock(engine) as connection:
        command.check(alembic_config(connection))


def test_the_migrated_schema_is_the_models_schema_to_the_letter(engine: Engine) -> None:
    """Beyond what Alembic compares: server defaults, CHECKs, conditions of indexes, AUTOINCREMENT."""
    migrate(engine, "head")
    migrated = definitions(engine)
    migrate(engine, "base", down=True)
    Base.metadata.create_all(engine)
    assert migrated == definitions(engine)


def test_plain_sql_need_only_give_what_has_no_default(migrated: Engine) -> None:
    for table in tables_of(migrated):
        required = {c.name for c in table.columns if not c.nullable and c.server_default is None}
        assert required - {"id"} == ROWS[table.name].keys() - {"id"}, table.name
    assert all(len(rows) == 1 for rows in rows_of(migrated).values())


def test_every_revision_goes_down_and_up_and_keeps_the_rows_of_tables_that_stay(migrated: Engine) -> None:
    revisions = list(ScriptDirectory.from_config(alembic_config()).walk_revisions())
    for _ in revisions:
        before = rows_of(migrated)
        migrate(migrated, "-1", down=True)
        below = rows_of(migrated)
        assert_kept(before, below)
        migrate(migrated, "+1")
        assert_kept(below, rows_of(migrated))
        migrate(migrated, "-1", down=True)
    assert tables_of(migrated) == []


def test_down_to_nothing_and_up_again_is_the_same_schema(migrated: Engine) -> None:
    before = definitions(migrated)
    migrate(migrated, "base", down=True)
    assert inspect(migrated).get_table_names() == ["alembic_version"]
    assert current_revision(migrated) is None
    migrate(migrated, "head")
    assert definitions(migrated) == before
    assert current_revision(migrated) == head_revision()


def test_upgrading_again_changes_nothing(migrated: Engine, empty_database_url: str) -> None:
    rows, schema = rows_of(migrated), definitions(migrated)
    upgrade(Settings(database_url=empty_database_url))
    assert rows_of(migrated) == rows
    assert definitions(migrated) == schema


def test_a_migration_that_copies_a_table_keeps_what_refers_to_it(migrated: Engine) -> None:
    """SQLite changes a column by copying the table; dropping the old one must not cascade."""
    with migration_lock(migrated) as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table(
            "task_executions", recreate="always" if migrated.dialect.name == "sqlite" else "never"
        ) as batch:
            batch.add_column(sa.Column("note", sa.Text()))
    rows = rows_of(migrated)
    assert "note" in rows["task_executions"][0]
    assert len(rows["task_attempts"]) == len(rows["execution_logs"]) == 1


def test_a_migration_that_leaves_orphans_changes_nothing(migrated: Engine) -> None:
    if migrated.dialect.name == "sqlite":
        with (
            pytest.raises(SchedulerUnavailable, match="task_attempts"),
            migration_lock(migrated) as connection,
        ):
            connection.execute(text("DELETE FROM task_executions"))
    else:
        with pytest.raises(sa.exc.IntegrityError), migration_lock(migrated) as connection:
            connection.execute(text("DELETE FROM accounts"))
    assert all(len(rows) == 1 for rows in rows_of(migrated).values())


def test_foreign_keys_are_on_again_after_a_migration(migrated: Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError), migrated.begin() as connection:
        connection.execute(text("UPDATE contents SET account_id = 4711"))


def test_processes_that_start_at_once_all_find_the_schema(empty_database_url: str) -> None:
    program = (
        "import sys; from app.core.config import Settings; from app.db.schema import upgrade; sys.stdin.read(); "
        f"upgrade(Settings(database_url={empty_database_url!r}))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0] * 4
    engine = make_engine(Settings(database_url=empty_database_url))
    assert current_revision(engine) == head_revision()
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(
    migrated: Engine, empty_database_url: str
) -> None:
    with migrated.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = rows_of(migrated)
    with pytest.raises(SchedulerUnavailable, match="newer"):
        upgrade(Settings(database_url=empty_database_url))
    assert current_revision(migrated) == "9999"
    assert rows_of(migrated) == before


def test_the_alembic_command_works_on_the_database_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    url = f"sqlite:///{tmp_path / 'commanded.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=root, check=True, timeout=60)
    engine = make_engine(Settings(database_url=url))
    assert current_revision(engine) == head_revision()
    engine.dispose()


def test_what_is_suspended_begins_anew_under_the_older_code(engine: Engine) -> None:
    migrate(engine, "0005")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO task_executions (task_type, state) VALUES ('work', 'suspended')"))
    migrate(engine, "0004", down=True)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT state FROM task_executions")) == "pending"
