"""Fires and idempotency keys are unique by partial indices: rows that have none are not in them.

On PostgreSQL an index is written to whenever a row changes its state; of these two, all that had no key and no fire
sat in one long run of NULLs.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels = None
depends_on = None

_TABLE = "task_executions"
_SPAN = "ix_task_executions_span"
_UNIQUE = {
    "uq_task_executions_fire": (("task_id", "scheduled_for"), "scheduled_for IS NOT NULL"),
    "uq_task_executions_idempotency_key": (("idempotency_key",), "idempotency_key IS NOT NULL"),
}


def upgrade() -> None:
    if _is_sqlite():
        _rebuild(remove=_constraints())
    else:
        for name in _UNIQUE:
            op.drop_constraint(name, _TABLE)
    for name, (columns, where) in _UNIQUE.items():
        condition = sa.text(where)
        op.create_index(
            name, _TABLE, list(columns), unique=True, sqlite_where=condition, postgresql_where=condition
        )
    # Of two indices that serve a query alike SQLite takes the one made last: for spans, their own.
    op.drop_index(_SPAN, _TABLE)
    spans = sa.text("fire_count > 1")
    op.create_index(_SPAN, _TABLE, ["task_id", "scheduled_for"], sqlite_where=spans, postgresql_where=spans)


def downgrade() -> None:
    for name in _UNIQUE:
        op.drop_index(name, _TABLE)
    if _is_sqlite():
        _rebuild(add=_constraints())
    else:
        for name, (columns, _) in _UNIQUE.items():
            op.create_unique_constraint(name, _TABLE, list(columns))


def _constraints() -> list[str]:
    return [f"CONSTRAINT {name} UNIQUE ({', '.join(columns)})" for name, (columns, _) in _UNIQUE.items()]


def _rebuild(*, add: list[str] | None = None, remove: list[str] | None = None) -> None:
    """Copy the table into one with constraints more, or less.

    In SQLite's own words and not by Alembic's batch mode, which would lose the CHECKs.
    """
    connection = op.get_bind()
    (definition,) = _definitions(connection, "table")
    indices = _definitions(connection, "index")
    last_id = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": _TABLE})
    body = definition[definition.index("(") : definition.rindex(")")]
    for constraint in remove or ():
        body = body.replace(f", \n\t{constraint}", "")
    for constraint in add or ():
        body = f"{body.rstrip()}, \n\t{constraint}\n"
    connection.exec_driver_sql(f"CREATE TABLE {_TABLE}_new {body})")
    connection.exec_driver_sql(f"INSERT INTO {_TABLE}_new SELECT * FROM {_TABLE}")  # noqa: S608 - our own names
    connection.exec_driver_sql(f"DROP TABLE {_TABLE}")
    connection.exec_driver_sql(f"ALTER TABLE {_TABLE}_new RENAME TO {_TABLE}")
    for index in indices:
        connection.exec_driver_sql(index)
    if last_id is not None:  # an id is never used twice, also not that of a row that is gone
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": _TABLE})
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"),
            {"name": _TABLE, "last": last_id},
        )


def _definitions(connection: sa.Connection, kind: str) -> list[str]:
    query = sa.text("SELECT sql FROM sqlite_master WHERE type = :kind AND tbl_name = :name AND sql IS NOT NULL")
    return list(connection.scalars(query, {"kind": kind, "name": _TABLE}))


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
