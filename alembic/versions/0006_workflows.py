"""What workflows need: contents that are held, the pool of those that are ready, keys that sign links.

Revision ID: 0006
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0010"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.add_column("contents", sa.Column("is_held", sa.Boolean(), server_default=sa.false(), nullable=False))
    if op.get_bind().dialect.name == "sqlite":
        _write_anew("contents")
    op.create_table(
        "content_pool",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("content_id", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(20), server_default="directory", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", _MOMENT, server_default=sa.func.current_timestamp(), nullable=False),
        sa.Column("state", sa.String(12), server_default="waiting", nullable=False),
        sa.Column("claimed_by", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("added_by", sa.Integer()),
        sa.Column("added_at", _MOMENT, server_default=sa.func.current_timestamp(), nullable=False),
        sa.Column("published_at", _MOMENT),
        sa.CheckConstraint(
            "state IN ('waiting', 'publishing', 'published', 'failed', 'withdrawn')",
            name=op.f("ck_content_pool_state"),
        ),
        sa.ForeignKeyConstraint(
            ["content_id"], ["contents.id"], name="fk_content_pool_content_id_contents", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_content_pool"),
        sa.UniqueConstraint("content_id", "target", name="uq_content_pool_once"),
        sqlite_autoincrement=True,
    )
    is_waiting = sa.text("state = 'waiting'")
    op.create_index(
        "ix_content_pool_waiting",
        "content_pool",
        ["target", "priority", "not_before"],
        sqlite_where=is_waiting,
        postgresql_where=is_waiting,
    )
    op.create_table(
        "signing_keys",
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("key", sa.String(100), nullable=False),
        sa.Column("created_at", _MOMENT, server_default=sa.func.current_timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_signing_keys"),
    )


def downgrade() -> None:
    op.drop_table("signing_keys")
    op.drop_index("ix_content_pool_waiting", "content_pool")
    op.drop_table("content_pool")
    op.drop_column("contents", "is_held")


def _write_anew(table: str) -> None:
    """Copy a table of SQLite into one whose definition has the new column on a line of its own, as in a database
    that is made at once: SQLite has only put it behind the last one."""
    connection = op.get_bind()
    query = sa.text("SELECT sql FROM sqlite_master WHERE tbl_name = :table AND type = :kind AND sql IS NOT NULL")
    (definition,) = connection.scalars(query, {"table": table, "kind": "table"})
    indices = list(connection.scalars(query, {"table": table, "kind": "index"}))
    seq = {"table": table}
    last_id = connection.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :table"), seq)
    body = definition[definition.index("(") :].replace(", is_held ", ", \n\tis_held ")
    connection.exec_driver_sql(f"CREATE TABLE {table}_new {body}")
    connection.exec_driver_sql(f"INSERT INTO {table}_new SELECT * FROM {table}")  # noqa: S608 - our own names
    connection.exec_driver_sql(f"DROP TABLE {table}")
    connection.exec_driver_sql(f"ALTER TABLE {table}_new RENAME TO {table}")
    for index in indices:
        connection.exec_driver_sql(index)
    if last_id is not None:  # an id is never used twice, also not that of a row that is gone
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :table"), seq)
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"), seq | {"last": last_id}
        )
