"""Durable executions: the state `suspended`, steps, signals, and children of an execution.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
_OLD_STATES = "'pending', 'running', 'retrying', 'parked', 'success', 'failed', 'cancelled', 'skipped'"
_NEW_STATES = (
    "'pending', 'running', 'retrying', 'suspended', 'parked', 'success', 'failed', 'cancelled', 'skipped'"
)
_OLD_WAITING = "state IN ('pending', 'retrying')"
_NEW_WAITING = "state IN ('pending', 'retrying', 'suspended')"
_OLD_ACTIVE = "state IN ('pending', 'retrying', 'running')"
_NEW_ACTIVE = "state IN ('pending', 'retrying', 'suspended', 'running')"
_COLUMNS = ("parent_id", "child_key", "children_awaited")
_READABLE = " AND typeof(parent_id) IN ('integer', 'null') AND typeof(children_awaited) IN ('integer', 'null')"


def upgrade() -> None:
    op.add_column("task_executions", sa.Column("parent_id", sa.Integer()))
    op.add_column("task_executions", sa.Column("child_key", sa.String(200)))
    op.add_column("task_executions", sa.Column("children_awaited", sa.Integer()))
    _allow(_OLD_STATES, _NEW_STATES)
    _index_states(_NEW_WAITING, _NEW_ACTIVE)
    is_child = sa.text("parent_id IS NOT NULL")
    op.create_index(
        "uq_task_executions_child",
        "task_executions",
        ["parent_id", "child_key"],
        unique=True,
        sqlite_where=is_child,
        postgresql_where=is_child,
    )
    op.create_table(
        "execution_steps",
        sa.Column("execution_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(210), nullable=False),
        sa.Column("position", sa.Integer()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT),
        sa.Column("due_at", _MOMENT),
        sa.Column("result", sa.Text()),
        sa.CheckConstraint("kind IN ('step', 'sleep', 'signal')", name="kind"),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["task_executions.id"],
            name="fk_execution_steps_execution_id_task_executions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("execution_id", "kind", "name", name="pk_execution_steps"),
    )
    op.create_table(
        "execution_signals",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("execution_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("payload", sa.Text()),
        sa.Column("signalled_by", sa.String(200)),
        sa.Column("signalled_at", _MOMENT, server_default=sa.func.current_timestamp(), nullable=False),
        sa.Column("consumed_at", _MOMENT),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["task_executions.id"],
            name="fk_execution_signals_execution_id_task_executions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_execution_signals"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_execution_signals_execution", "execution_signals", ["execution_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_execution_signals_execution", "execution_signals")
    op.drop_table("execution_signals")
    op.drop_table("execution_steps")
    op.drop_index("uq_task_executions_child", "task_executions")
    # The older code knows no such state: it begins them anew, as it would after a crash.
    op.execute("UPDATE task_executions SET state = 'pending', reason = NULL WHERE state = 'suspended'")
    _index_states(_OLD_WAITING, _OLD_ACTIVE)
    _allow(_NEW_STATES, _OLD_STATES)
    for column in reversed(_COLUMNS):
        op.drop_column("task_executions", column)


def _index_states(waiting: str, active: str) -> None:
    for name, columns, where in (
        ("claimable", ["priority", "run_at"], f"owner IS NULL AND {waiting}"),
        ("owned", ["owner"], f"owner IS NOT NULL AND {active}"),
        ("active_task", ["task_id", "state"], f"task_id IS NOT NULL AND {active}"),
    ):
        index, condition = f"ix_task_executions_{name}", sa.text(where)
        op.drop_index(index, "task_executions")
        op.create_index(index, "task_executions", columns, sqlite_where=condition, postgresql_where=condition)


def _allow(before: str, after: str) -> None:
    """Change the CHECK on states; on SQLite also the one on what can be read, which names the new numbers."""
    if not _is_sqlite():
        op.drop_constraint("ck_task_executions_state", "task_executions")
        op.execute(
            f"ALTER TABLE task_executions ADD CONSTRAINT ck_task_executions_state CHECK (state IN ({after}))"
        )
        return
    connection = op.get_bind()
    (definition,) = _definitions(connection, "table")
    indices = _definitions(connection, "index")
    last_id = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'task_executions'"))
    definition = definition[definition.index("(") :].replace(before, after)
    last = "typeof(progress) IN ('integer', 'real', 'null')"
    if after == _NEW_STATES:
        for column in _COLUMNS:  # each on a line of its own, as in a table made at once
            definition = definition.replace(f", {column} ", f", \n\t{column} ")
        definition = definition.replace(last, last + _READABLE)
    else:
        definition = definition.replace(_READABLE, "")
    connection.exec_driver_sql(f"CREATE TABLE task_executions_new {definition}")
    connection.exec_driver_sql("INSERT INTO task_executions_new SELECT * FROM task_executions")
    connection.exec_driver_sql("DROP TABLE task_executions")
    connection.exec_driver_sql("ALTER TABLE task_executions_new RENAME TO task_executions")
    for index in indices:
        connection.exec_driver_sql(index)
    if last_id is not None:  # an id is never used twice, also not that of a row that is gone
        connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'task_executions'")
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES ('task_executions', :last)"), {"last": last_id}
        )


def _definitions(connection: sa.Connection, kind: str) -> list[str]:
    query = sa.text(
        "SELECT sql FROM sqlite_master WHERE type = :kind AND tbl_name = 'task_executions' AND sql IS NOT NULL"
    )
    return list(connection.scalars(query, {"kind": kind}))


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
