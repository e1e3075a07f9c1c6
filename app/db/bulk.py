"""Bulk writes at the speed of the driver.

SQLAlchemy Core turns each row of an `executemany` into parameters by itself, 25 µs a row with our columns: most of
what a job cost. `Bulk` compiles a Core statement once a dialect and hands the driver the rows ready-made. The
statement and the column types are still Core's; only the loop over the rows is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Update

_Column = tuple[str, Callable[[Any], Any] | None, Any]


class Bulk:
    """A statement to be executed with many rows, each a mapping of all its parameters.

    `columns` names the columns of an INSERT; an UPDATE has its parameters spelled out as `bindparam()`.
    """

    def __init__(self, statement: Insert | Update, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = list(columns) if columns is not None else None
        self._compiled: dict[str, tuple[str, list[_Column], bool]] = {}

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute for every row; returns how many rows of the table matched or were inserted."""
        if not rows:
            return 0
        sql, columns, positional = self._for(connection.dialect)
        parameters: Any
        if positional:
            parameters = [
                tuple(
                    [
                        row.get(name, default) if process is None else process(row.get(name, default))
                        for name, process, default in columns
                    ]
                )
                for row in rows
            ]
        else:
            parameters = [
                {
                    name: row.get(name, default) if process is None else process(row.get(name, default))
                    for name, process, default in columns
                }
                for row in rows
            ]
        return connection.exec_driver_sql(sql, parameters).rowcount

    def _for(self, dialect: Dialect) -> tuple[str, list[_Column], bool]:
        known = self._compiled.get(dialect.name)
        if known is None:
            compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
            names = compiled.positiontup if compiled.positional else list(compiled.binds)
            columns: list[_Column] = []
            for name in names or ():
                bind = compiled.binds[name]
                process = bind.type.dialect_impl(dialect).bind_processor(dialect)
                columns.append((name, process, None if bind.required else bind.value))
            known = self._compiled[dialect.name] = (compiled.string, columns, compiled.positional)
        return known
