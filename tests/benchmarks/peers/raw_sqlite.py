"""The limit of any durable queue on SQLite: bare `sqlite3` inserting rows as wide as an execution."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.benchmarks import probe
from tests.benchmarks.measure import spread_ms

_INSERT = "INSERT INTO executions (task_type, params, state, created_at) VALUES (?, ?, ?, ?)"
_ROW = ("no_op", '{"topic": "benchmark"}', "pending", "2026-01-01 00:00:00.000000")


@contextmanager
def _connection(synchronous: str) -> Iterator[sqlite3.Connection]:
    with (
        probe.workspace() as folder,
        closing(sqlite3.connect(folder / "raw.db", isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(
            "CREATE TABLE executions (id INTEGER PRIMARY KEY AUTOINCREMENT, task_type TEXT NOT NULL,"
            " params TEXT NOT NULL, state TEXT NOT NULL, created_at TEXT NOT NULL)"
        )
        yield connection


def group_commit(rows: int, group: int, synchronous: str) -> probe.Figures:
    """Insert `rows` rows, `group` of them in one transaction."""
    with _connection(synchronous) as connection:
        started = time.perf_counter()
        for _ in range(rows // group):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, [_ROW] * group)
            connection.execute("COMMIT")
        return {"rate": rows / (time.perf_counter() - started)}


def one_row_a_transaction(rows: int, synchronous: str) -> probe.Figures:
    """Insert `rows` rows, each in a transaction of its own."""
    seconds: list[float] = []
    with _connection(synchronous) as connection:
        for _ in range(rows):
            started = time.perf_counter()
            connection.execute(_INSERT, _ROW)
            seconds.append(time.perf_counter() - started)
    return {"rate": rows / sum(seconds), **spread_ms("start", seconds)}


if __name__ == "__main__":
    probe.main(group_commit, one_row_a_transaction)
