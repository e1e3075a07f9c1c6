"""Work at a measure: rate limits, circuits, request keys; windows and calendars of tasks.

Revision ID: 0011
Revises: 0006
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None

_NEW_COLUMNS = {
    "task_executions": (("rate_limit", "TEXT"), ("waits_for", "VARCHAR(300)"), ("due_at", "MOMENT")),
    "scheduled_tasks": (
        ("rate_limit", "TEXT"),
        ("run_window", "TEXT"),
        ("calendar", "TEXT"),
        ("closed_policy", "VARCHAR(10) DEFAULT 'skip' NOT NULL"),
    ),
}
_JSON = {"task_executions": ("rate_limit",), "scheduled_tasks": ("rate_limit", "run_window", "calendar")}
_MOMENTS: dict[str, tuple[str, ...]] = {"task_executions": ("due_at",), "scheduled_tasks": ()}
_CLOSED_POLICY = "CONSTRAINT ck_scheduled_tasks_closed_policy CHECK (closed_policy IN ('skip', 'defer'))"
_PUT_OFF = sa.text("waits_for IS NOT NULL AND owner IS NULL AND state IN ('pending', 'retrying', 'suspended')")
_INDICES = {
    "ix_task_executions_put_off": ["run_at"],
    "ix_task_executions_waits_for": ["waits_for", "run_at"],
}


def upgrade() -> None:
    for table in _NEW_COLUMNS:
        _change(table, _widened)
    for name, columns in _INDICES.items():
        op.create_index(name, "task_executions", columns, sqlite_where=_PUT_OFF, postgresql_where=_PUT_OFF)
    moment = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.String(300), nullable=False),
        sa.Column("rate", sa.Integer(), nullable=False),
        sa.Column("per_seconds", sa.Float(), nullable=False),
        sa.Column("burst", sa.Integer(), nullable=False),
        sa.Column("tat", moment, nullable=False),
        sa.Column("line_end", moment),
        sa.Column("line_priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_rate_limits"),
        *_readable(
            "rate_limits",
            numbers=(("rate", "int"), ("per_seconds", "real"), ("burst", "int")),
            moments=("tat", "line_end"),
            last_numbers=(("line_priority", "int"),),
            last_moments=("updated_at",),
        ),
    )
    op.create_index("ix_rate_limits_line_end", "rate_limits", ["line_end"])
    op.create_index("ix_rate_limits_tat", "rate_limits", ["tat"])
    op.create_table(
        "circuits",
        sa.Column("task_type", sa.String(100), nullable=False),
        sa.Column("state", sa.String(10), server_default="closed", nullable=False),
        sa.Column("outcomes", sa.Text(), server_default="", nullable=False),
        sa.Column("since", moment),
        sa.Column("probe_at", moment),
        sa.Column("probes_left", sa.Integer(), server_default="0", nullable=False),
        sa.Column("successes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("line_end", moment),
        sa.PrimaryKeyConstraint("task_type", name="pk_circuits"),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state"),
        *_readable(
            "circuits",
            moments=("since", "probe_at"),
            last_numbers=(("probes_left", "int"), ("successes", "int")),
            last_moments=("line_end",),
        ),
    )
    op.create_table(
        "request_keys",
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("task_type", sa.String(100), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("execution_id", sa.Integer()),
        sa.Column("since", moment),
        sa.Column("expires_at", moment),
        sa.PrimaryKeyConstraint("kind", "task_type", "key", name="pk_request_keys"),
        sa.CheckConstraint("kind IN ('debounce', 'throttle', 'once')", name="kind"),
        *_readable("request_keys", numbers=(("execution_id", "int"),), moments=("since", "expires_at")),
    )
    op.create_index("ix_request_keys_expires_at", "request_keys", ["expires_at"])


def downgrade() -> None:
    op.drop_table("request_keys")
    op.drop_table("circuits")
    op.drop_table("rate_limits")
    for name in _INDICES:
        op.drop_index(name, "task_executions")
    for table in _NEW_COLUMNS:
        _change(table, _narrowed)


# -------------------------------------------------------------------- new columns, and the CHECK that reads them


def _change(table: str, on_sqlite: Callable[[str, list[str]], list[str]]) -> None:
    is_upgrade = on_sqlite is _widened
    if _is_sqlite():
        _rebuild(table, on_sqlite)
        return
    columns = [(name, kind.replace("MOMENT", "TIMESTAMP WITH TIME ZONE")) for name, kind in _NEW_COLUMNS[table]]
    condition = _readable_on_postgresql(table)
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_readable")
    if is_upgrade:
        for name, kind in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
        more = " AND ".join(_json_on_postgresql(name) for name in _JSON[table])
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_readable CHECK ({condition} AND {more})")
        if table == "scheduled_tasks":
            op.execute(f"ALTER TABLE {table} ADD {_CLOSED_POLICY}")
        return
    kept = [part for part in _conjuncts(condition) if not any(re.search(rf"\b{c}\b", part) for c, _ in columns)]
    for name, _ in columns:
        op.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_readable CHECK ({' AND '.join(kept)})")


def _readable_on_postgresql(table: str) -> str:
    query = "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = :name"
    condition: str = op.get_bind().scalar(sa.text(query), {"name": f"ck_{table}_readable"})
    return condition


def _conjuncts(condition: str) -> list[str]:
    """`(a AND (b OR c))` as its parts, whatever is nested in them."""
    body = condition[1:-1]
    parts, depth, start = [], 0, 0
    for position, character in enumerate(body):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and body.startswith(" AND ", position):
            parts.append(body[start:position])
            start = position + len(" AND ")
    return [*parts, body[start:]]


def _widened(table: str, lines: list[str]) -> list[str]:
    """The lines of SQLite's CREATE TABLE with the new columns, and their part of the CHECK."""
    first = next(position for position, line in enumerate(lines) if line.lstrip().startswith("CONSTRAINT"))
    columns = [f"\t{name} {kind.replace('MOMENT', 'TEXT')}, " for name, kind in _NEW_COLUMNS[table]]
    checks = [f"\t{_CLOSED_POLICY}, "] if table == "scheduled_tasks" else []
    more = " AND ".join(_on_sqlite(table))
    return [
        *lines[:first],
        *columns,
        *checks,
        *(_with_more(line, more) if f"ck_{table}_readable" in line else line for line in lines[first:]),
    ]


def _with_more(line: str, more: str) -> str:
    end = line.rindex(")")
    return f"{line[:end]} AND {more}{line[end:]}"


def _narrowed(table: str, lines: list[str]) -> list[str]:
    new = tuple(f"\t{name} " for name, _ in _NEW_COLUMNS[table])
    more = " AND ".join(_on_sqlite(table))
    return [
        line.replace(f" AND {more}", "")
        for line in lines
        if not line.startswith(new) and "ck_scheduled_tasks_closed_policy" not in line
    ]


def _rebuild(table: str, change: Callable[[str, list[str]], list[str]]) -> None:
    """Copy a table into one whose definition is `change` of its own; what both have is kept.

    In SQLite's own words and not by Alembic's batch mode, which would lose the other CHECKs.
    """
    connection = op.get_bind()
    (definition,) = _definitions(connection, "table", table)
    indices = _definitions(connection, "index", table)
    last_id = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table})
    before = _columns(connection, table)
    body = definition[definition.index("(") : definition.rindex(")")]
    connection.exec_driver_sql(f"CREATE TABLE {table}_new " + "\n".join(change(table, body.split("\n"))) + ")")
    kept = ", ".join(name for name in _columns(connection, f"{table}_new") if name in before)
    connection.exec_driver_sql(f"INSERT INTO {table}_new ({kept}) SELECT {kept} FROM {table}")  # noqa: S608 - our own names
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


def _columns(connection: sa.Connection, table: str) -> list[str]:
    return [row.name for row in connection.exec_driver_sql(f"PRAGMA table_info({table})")]


def _definitions(connection: sa.Connection, kind: str, table: str) -> list[str]:
    query = sa.text("SELECT sql FROM sqlite_master WHERE type = :kind AND tbl_name = :name AND sql IS NOT NULL")
    return list(connection.scalars(query, {"kind": kind, "name": table}))


# -------------------------------------------------------------------- conditions


def _on_sqlite(table: str) -> list[str]:
    return [
        *(condition for name in _JSON[table] for condition in (_json_on_sqlite(name),)),
        *(condition for name in _MOMENTS[table] for condition in _moment_on_sqlite(name)),
    ]


def _json_on_sqlite(name: str) -> str:
    return f"({name} IS NULL OR (json_valid({name}) AND json_type({name}) = 'object'))"


def _json_on_postgresql(name: str) -> str:
    return f"({name} IS NULL OR json_typeof(CAST({name} AS json)) = 'object')"


def _moment_on_sqlite(name: str) -> tuple[str, str]:
    return (
        f"datetime(substr({name}, 1, 19), '+0 days') IS substr({name}, 1, 19)",
        f"({name} IS NULL OR substr({name}, 20) NOT GLOB '*[^.0-9]*')",
    )


def _number_on_sqlite(name: str, kind: str) -> str:
    return f"typeof({name}) IN ('integer', {chr(39) + 'real' + chr(39) + ', ' if kind == 'real' else ''}'null')"


def _readable(
    table: str,
    *,
    numbers: Sequence[tuple[str, str]] = (),
    moments: Sequence[str] = (),
    last_numbers: Sequence[tuple[str, str]] = (),
    last_moments: Sequence[str] = (),
) -> list[sa.CheckConstraint]:
    """SQLite's CHECK that a new table's moments and numbers can be read, in the order of its columns."""
    if not _is_sqlite():
        return []
    conditions: list[str] = []
    for of_numbers, of_moments in ((numbers, moments), (last_numbers, last_moments)):
        conditions += [_number_on_sqlite(name, kind) for name, kind in of_numbers]
        conditions += [condition for name in of_moments for condition in _moment_on_sqlite(name)]
    return [sa.CheckConstraint(" AND ".join(conditions), name="readable")]


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
