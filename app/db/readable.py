"""CHECKs that keep out what the application could not read again.

Tasks and executions may be written in plain SQL, and SQLite stores any text in any column: one moment that is no
moment, one text that is no JSON, and every query that meets the row fails.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import CheckConstraint, Column, Float, Integer, Table

from app.db.types import Json, UtcDateTime


def refuse_unreadable(table: Table) -> None:
    """Give `table` a CHECK on its moments, JSON objects and numbers.

    Moments on SQLite must have the one form that sorts as time does: `YYYY-MM-DD HH:MM:SS[.ffffff]`, UTC.
    """
    for dialect, conditions in (("sqlite", _on_sqlite(table)), ("postgresql", _on_postgresql(table))):
        condition = " AND ".join(conditions)
        if condition:
            table.append_constraint(CheckConstraint(condition, name="readable").ddl_if(dialect=dialect))


def _on_sqlite(table: Table) -> Iterator[str]:
    for column in table.columns:
        name = column.name
        if isinstance(column.type, UtcDateTime):
            yield f"datetime(substr({name}, 1, 19), '+0 days') IS substr({name}, 1, 19)"
            yield f"({name} IS NULL OR substr({name}, 20) NOT GLOB '*[^.0-9]*')"
        elif isinstance(column.type, Json):
            yield f"({name} IS NULL OR (json_valid({name}) AND json_type({name}) = 'object'))"
        elif not column.primary_key and isinstance(column.type, Integer | Float):
            yield f"typeof({name}) IN ('integer', {_or_real(column)}'null')"


def _or_real(column: Column[object]) -> str:
    return "'real', " if isinstance(column.type, Float) else ""


def _on_postgresql(table: Table) -> Iterator[str]:
    for column in table.columns:
        if isinstance(column.type, Json):
            yield f"({column.name} IS NULL OR json_typeof(CAST({column.name} AS json)) = 'object')"
