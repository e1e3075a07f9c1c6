"""Many rows in one statement.

Three costs made up most of what a job cost. SQLAlchemy Core turns each row of an `executemany` into parameters by
itself, 25 µs a row with our columns; here a statement is compiled once a dialect, and the driver is handed rows
ready-made. psycopg makes the text of an array value by value, in Python, twice as slow again; PostgreSQL gets all
rows as one JSON document. And Python's sqlite3 lets go of the interpreter at each row of an `executemany` and must
win it back from every other thread; here a statement carries up to 256 rows, and SQLite works on them while Python
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any

from pydantic_core import to_json
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Dialect,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.engine.interfaces import Compiled
from sqlalchemy.sql.elements import ColumnElement

_CHUNKS = (256, 64, 16, 4, 1)
"""Rows a statement: a few sizes, so that SQLite's prepared statements are used again and again."""

_ROWS = "rows"
"""The one parameter of a statement on PostgreSQL."""

Parameters = Mapping[str, ColumnElement[Any]]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A statement for one dialect, and how rows become its parameters."""

    sql: str
    names: tuple[str, ...]
    values_of: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """A row's values, in the order of `names`."""
    processors: Sequence[tuple[int, Callable[[Any], Any]]]
    """Which of them the column's type converts."""
    repeated: dict[int, str] = field(default_factory=dict)

    def of_rows(self, count: int) -> str:
        """SQLite's statement for `count` rows: the one for a single row with its `(?, …)` repeated."""
        statement = self.repeated.get(count)
        if statement is None:
            one = _one_row(len(self.names))
            statement = self.repeated[count] = self.sql.replace(one, ", ".join([one] * count), 1)
        return statement

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
        """The values of all rows, converted, by column: a column without values, as most are, costs nothing."""
        columns: list[Sequence[Any]] = list(zip(*map(self.values_of, rows), strict=True))
        for position, process in self.processors:
            values = columns[position]
            if values.count(None) != len(values):
                columns[position] = list(map(process, values))
        return columns


class _Bulk:
    """What insert and update share: compile once a dialect, execute for many rows at a time."""

    def __init__(self, columns: Mapping[str, Column[Any]]) -> None:
        self._columns = columns
        self._prepared: dict[str, _Prepared] = {}

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute for every row, a mapping of all its parameters; returns how many rows of the table matched or
        were inserted. No two rows of an update may mean the same row of the table.

        Raises:
            KeyError: a row lacks one of the parameters.
        """
        if not rows:
            return 0
        dialect = connection.dialect
        prepared = self._prepared.get(dialect.name)
        if prepared is None:
            prepared = self._prepared[dialect.name] = self._prepare(dialect)
        columns = prepared.columns(rows)
        if dialect.name != "sqlite":
            records = [dict(zip(prepared.names, values, strict=True)) for values in zip(*columns, strict=True)]
            document = to_json(records, inf_nan_mode="strings").decode()
            return connection.exec_driver_sql(prepared.sql, {_ROWS: document}).rowcount
        parameters = tuple(chain.from_iterable(zip(*columns, strict=True)))
        width, start, matched = len(columns), 0, 0
        for count in _chunks(len(rows)):
            end = start + count * width
            matched += connection.exec_driver_sql(prepared.of_rows(count), parameters[start:end]).rowcount
            start = end
        return matched

    def _prepare(self, dialect: Dialect) -> _Prepared:
        compiled = self._compiled(dialect)
        names = tuple(self._columns)
        if not compiled.params.keys() <= {_ROWS, *self._columns}:
            raise TypeError(f"the statement has parameters of its own: {compiled}")
        processors = []
        for position, name in enumerate(names):
            process = self._columns[name].type.dialect_impl(dialect).bind_processor(dialect)
            if process is not None:
                processors.append((position, process))
        return _Prepared(str(compiled), names, itemgetter(*names), processors)

    def _compiled(self, dialect: Dialect) -> Compiled:
        raise NotImplementedError

    def _given(self, dialect: Dialect) -> Select[Any]:
        """SELECT of the rows given: on SQLite one `(?, …)`, to be repeated; on PostgreSQL a JSON document."""
        if dialect.name == "sqlite":
            columns = [
                literal_column(f"column{number}", of.type).label(name)
                for number, (name, of) in enumerate(self._columns.items(), 1)
            ]
            return select(*columns).select_from(text(f"(VALUES {_one_row(len(columns))})"))
        record = func.json_to_recordset(cast(bindparam(_ROWS), JSON)).table_valued(
            *(column(name, of.type) for name, of in self._columns.items()), name="record"
        )
        return select(*record.render_derived(with_types=True).c)


class BulkInsert(_Bulk):
    """INSERT of the named columns."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        super().__init__({name: table.c[name] for name in names})
        self._statement: Insert = insert(table)

    def _compiled(self, dialect: Dialect) -> Compiled:
        if dialect.name == "sqlite":  # plain VALUES: a SELECT would go through a table of its own first
            return self._statement.compile(dialect=dialect, column_keys=list(self._columns))
        return self._statement.from_select(list(self._columns), self._given(dialect)).compile(dialect=dialect)


class BulkUpdate(_Bulk):
    """UPDATE of one row of the table for each row given.

    `columns` says for each parameter which column it is compared with or stored in; `statement` is handed the
    parameters and makes the UPDATE. It may hold no other parameter: constants are spelled out in it.
    """

    def __init__(self, columns: Mapping[str, Column[Any]], statement: Callable[[Parameters], Update]) -> None:
        super().__init__(columns)
        self._statement = statement

    def _compiled(self, dialect: Dialect) -> Compiled:
        # No CTE: in a statement that begins with WITH, Python's sqlite3 neither counts rows nor sees a write.
        given = self._given(dialect).subquery("given")
        return self._statement(dict(given.c.items())).compile(dialect=dialect)


def _one_row(width: int) -> str:
    return f"({', '.join('?' * width)})"


def _chunks(rows: int) -> Iterator[int]:
    """How many rows each statement takes."""
    for size in _CHUNKS:
        while rows >= size:
            yield size
            rows -= size
