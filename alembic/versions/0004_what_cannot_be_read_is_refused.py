"""What cannot be read is refused: CHECKs on moments, JSON and numbers of tasks and executions.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None

_SQLITE = {
    "scheduled_tasks": (
        "(params IS NULL OR (json_valid(params) AND json_type(params) = 'object')) AND "
        "datetime(substr(start_at, 1, 19), '+0 days') IS substr(start_at, 1, 19) AND "
        "(start_at IS NULL OR substr(start_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(end_at, 1, 19), '+0 days') IS substr(end_at, 1, 19) AND "
        "(end_at IS NULL OR substr(end_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "typeof(jitter_seconds) IN ('integer', 'real', 'null') AND "
        "typeof(priority) IN ('integer', 'null') AND "
        "typeof(timeout_seconds) IN ('integer', 'real', 'null') AND "
        "(retry IS NULL OR (json_valid(retry) AND json_type(retry) = 'object')) AND "
        "typeof(misfire_grace_seconds) IN ('integer', 'real', 'null') AND "
        "typeof(concurrency_limit) IN ('integer', 'null') AND "
        "datetime(substr(next_run_at, 1, 19), '+0 days') IS substr(next_run_at, 1, 19) AND "
        "(next_run_at IS NULL OR substr(next_run_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(exhausted_at, 1, 19), '+0 days') IS substr(exhausted_at, 1, 19) AND "
        "(exhausted_at IS NULL OR substr(exhausted_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(last_run_at, 1, 19), '+0 days') IS substr(last_run_at, 1, 19) AND "
        "(last_run_at IS NULL OR substr(last_run_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "(declared IS NULL OR (json_valid(declared) AND json_type(declared) = 'object')) AND "
        "typeof(version) IN ('integer', 'null') AND "
        "datetime(substr(created_at, 1, 19), '+0 days') IS substr(created_at, 1, 19) AND "
        "(created_at IS NULL OR substr(created_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(updated_at, 1, 19), '+0 days') IS substr(updated_at, 1, 19) AND "
        "(updated_at IS NULL OR substr(updated_at, 20) NOT GLOB '*[^.0-9]*')"
    ),
    "task_executions": (
        "typeof(task_id) IN ('integer', 'null') AND "
        "(params IS NULL OR (json_valid(params) AND json_type(params) = 'object')) AND "
        "datetime(substr(scheduled_for, 1, 19), '+0 days') IS substr(scheduled_for, 1, 19) AND "
        "(scheduled_for IS NULL OR substr(scheduled_for, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(first_fire_at, 1, 19), '+0 days') IS substr(first_fire_at, 1, 19) AND "
        "(first_fire_at IS NULL OR substr(first_fire_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "typeof(fire_count) IN ('integer', 'null') AND "
        "datetime(substr(run_at, 1, 19), '+0 days') IS substr(run_at, 1, 19) AND "
        "(run_at IS NULL OR substr(run_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(created_at, 1, 19), '+0 days') IS substr(created_at, 1, 19) AND "
        "(created_at IS NULL OR substr(created_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(started_at, 1, 19), '+0 days') IS substr(started_at, 1, 19) AND "
        "(started_at IS NULL OR substr(started_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "datetime(substr(finished_at, 1, 19), '+0 days') IS substr(finished_at, 1, 19) AND "
        "(finished_at IS NULL OR substr(finished_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "typeof(attempt) IN ('integer', 'null') AND "
        "typeof(failures) IN ('integer', 'null') AND "
        "typeof(rescues) IN ('integer', 'null') AND "
        "(retry IS NULL OR (json_valid(retry) AND json_type(retry) = 'object')) AND "
        "typeof(timeout_seconds) IN ('integer', 'real', 'null') AND "
        "typeof(priority) IN ('integer', 'null') AND "
        "typeof(concurrency_limit) IN ('integer', 'null') AND "
        "datetime(substr(cancel_requested_at, 1, 19), '+0 days') IS substr(cancel_requested_at, 1, 19) AND "
        "(cancel_requested_at IS NULL OR substr(cancel_requested_at, 20) NOT GLOB '*[^.0-9]*') AND "
        "(result IS NULL OR (json_valid(result) AND json_type(result) = 'object')) AND "
        "typeof(duration_seconds) IN ('integer', 'real', 'null') AND "
        "typeof(progress) IN ('integer', 'real', 'null')"
    ),
}
_POSTGRESQL = {
    "scheduled_tasks": (
        "(params IS NULL OR json_typeof(CAST(params AS json)) = 'object') AND "
        "(retry IS NULL OR json_typeof(CAST(retry AS json)) = 'object') AND "
        "(declared IS NULL OR json_typeof(CAST(declared AS json)) = 'object')"
    ),
    "task_executions": (
        "(params IS NULL OR json_typeof(CAST(params AS json)) = 'object') AND "
        "(retry IS NULL OR json_typeof(CAST(retry AS json)) = 'object') AND "
        "(result IS NULL OR json_typeof(CAST(result AS json)) = 'object')"
    ),
}


def upgrade() -> None:
    for table, condition in (_SQLITE if _is_sqlite() else _POSTGRESQL).items():
        if _is_sqlite():
            _rebuild(table, add=_check(table, condition))
        else:
            op.execute(f"ALTER TABLE {table} ADD {_check(table, condition)}")


def downgrade() -> None:
    for table, condition in _SQLITE.items():
        if _is_sqlite():
            _rebuild(table, remove=_check(table, condition))
        else:
            op.drop_constraint(f"ck_{table}_readable", table)


def _check(table: str, condition: str) -> str:
    return f"CONSTRAINT ck_{table}_readable CHECK ({condition})"


def _rebuild(table: str, *, add: str | None = None, remove: str | None = None) -> None:
    """Copy a table into one with a constraint more, or less.

    In SQLite's own words and not by Alembic's batch mode, which would lose the other CHECKs.
    """
    connection = op.get_bind()
    (definition,) = _definitions(connection, "table", table)
    indices = _definitions(connection, "index", table)
    last_id = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table})
    body = definition[definition.index("(") : definition.rindex(")")]
    if add is not None:
        body = f"{body.rstrip()}, \n\t{add}\n"
    if remove is not None:
        body = body.replace(f", \n\t{remove}", "")
    connection.exec_driver_sql(f"CREATE TABLE {table}_new {body})")
    connection.exec_driver_sql(f"INSERT INTO {table}_new SELECT * FROM {table}")  # noqa: S608 - our own names
    connection.exec_driver_sql(f"DROP TABLE {table}")
    connection.exec_driver_sql(f"ALTER TABLE {table}_new RENAME TO {table}")
    for index in indices:
        connection.exec_driver_sql(index)
    if last_id is not None:  # an id is never used twice, also not that of a row that is gone
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table})
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"),
            {"name": table, "last": last_id},
        )


def _definitions(connection: sa.Connection, kind: str, table: str) -> list[str]:
    query = sa.text("SELECT sql FROM sqlite_master WHERE type = :kind AND tbl_name = :name AND sql IS NOT NULL")
    return list(connection.scalars(query, {"kind": kind, "name": table}))


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
