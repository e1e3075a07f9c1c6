"""Bulk writes at the speed of the driver.

SQLAlchemy Core turns each row of an `executemany` into parameters by itself, 25 µs a row with our columns: most of
what a job cost. `Bulk` compiles a Core statement once a dialect and hands the driver the rows ready-made. The
statement and the column types are still Core's; only the loop over the rows is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Update


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement for one dialect, and how a row becomes its parameters."""

    sql: str
    names: tuple[str, ...]
    values_of: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """The row's values, in the order of `names`."""
    processors: list[tuple[int, Callable[[Any], Any]]]
    """Which of them the column's type converts."""
    constants: list[tuple[Any, Any]]
    """What the statement itself says: by position, ascending, or by name."""
    positional: bool

    def parameters(self, row: Mapping[str, Any]) -> Any:
        values = list(self.values_of(row))
        for position, process in self.processors:
            values[position] = process(values[position])
        if not self.positional:
            return dict(zip(self.names, values, strict=True)) | dict(self.constants)
        for position, value in self.constants:
            values.insert(position, value)
        return tuple(values)


class Bulk:
    """A statement to be executed with many rows, each a mapping of all its parameters.

    `columns` names the columns of an INSERT; an UPDATE has its parameters spelled out as `bindparam()`.
    """

    def __init__(self, statement: Insert | Update, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = list(columns) if columns is not None else None
        self._compiled: dict[str, _Compiled] = {}

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute for every row; returns how many rows of the table matched or were inserted.

        Raises:
            KeyError: a row lacks one of the parameters.
        """
        if not rows:
            return 0
        compiled = self._for(connection.dialect)
        return connection.exec_driver_sql(compiled.sql, [compiled.parameters(row) for row in rows]).rowcount

    def _for(self, dialect: Dialect) -> _Compiled:
        known = self._compiled.get(dialect.name)
        if known is None:
            known = self._compiled[dialect.name] = _compile(self._statement, self._columns, dialect)
        return known


def _compile(statement: Insert | Update, columns: list[str] | None, dialect: Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    all_names = list(compiled.positiontup or ()) if compiled.positional else list(compiled.binds)
    names: list[str] = []
    processors: list[tuple[int, Callable[[Any], Any]]] = []
    constants: list[tuple[Any, Any]] = []
    for position, name in enumerate(all_names):
        bind = compiled.binds[name]
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if bind.required:
            if process is not None:
                processors.append((len(names), process))
            names.append(name)
        else:
            value = bind.value if process is None else process(bind.value)
            constants.append((position if compiled.positional else name, value))
    return _Compiled(compiled.string, tuple(names), itemgetter(*names), processors, constants, compiled.positional)
