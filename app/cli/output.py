"""What a command shows: tables and sentences for people, JSON for programs, errors on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.core.errors import NotFound, SchedulerError
from app.core.jsonable import to_plain_json

# Into a pipe rich would assume 80 columns and break every row of a table.
out = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]

_STYLES = {
    "success": "green",
    "ok": "green",
    "running": "cyan",
    "retrying": "yellow",
    "suspended": "blue",
    "parked": "yellow",
    "warn": "yellow",
    "failed": "red",
    "fail": "red",
    "cancelled": "magenta",
    "skipped": "dim",
}
_LISTED_BY = {
    "task": "contenthub task list",
    "execution": "contenthub execution list",
    "approval": "contenthub approval list",
    "pool entry": "contenthub pool list",
    "circuit": "contenthub flow show",
    "alert": "contenthub alert list",
    "rule": "contenthub alert rule list",
    "channel": "contenthub alert channel list",
    "token": "contenthub token list",
}
# All control characters but tab and newline: text from feeds and executors must not steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def show_json(value: Any) -> None:
    """Write `value` as JSON on stdout; moments become ISO 8601."""
    typer.echo(json.dumps(to_plain_json(value), ensure_ascii=False, indent=2))


def show_json_line(value: Any) -> None:
    """Write `value` as one line of JSON, for streams of records."""
    typer.echo(json.dumps(to_plain_json(value), ensure_ascii=False))


def show_text(text: str) -> None:
    """Write text as it is, for files and pipes."""
    typer.echo(text, nl=False)


def say(sentence: str, style: str = "") -> None:
    """A sentence for the person at the terminal, on stdout."""
    out.print(printable(sentence), style=style)


def note(sentence: str) -> None:
    """A remark beside the output, on stderr."""
    err.print(printable(sentence), style="yellow")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table, one line a row where the terminal is wide enough."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    out.print(table, soft_wrap=False)


def show_fields(fields: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, Text(printable(value)) if isinstance(value, str) else value)
    out.print(table, soft_wrap=False)


def state(name: str | None) -> Text:
    """A state or a verdict in its colour."""
    return Text(name or "", style=_STYLES.get(name or "", ""))


def moment(value: datetime | None, zone: str) -> str:
    """A moment on the clock of `zone`, with its offset; nothing for None."""
    if value is None:
        return ""
    return value.astimezone(ZoneInfo(zone)).isoformat(sep=" ", timespec="seconds")


def printable(text: str) -> str:
    """`text` without control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def refuse(error: SchedulerError) -> None:
    """Say on stderr what was wrong and what to do: one line a field."""
    sentences = [f"{item.field}: {item.message}" for item in error.errors] or [str(error)]
    if isinstance(error, NotFound) and error.kind in _LISTED_BY:
        sentences = [f"{error}; see `{_LISTED_BY[error.kind]}`"]
    for sentence in sentences:
        line = Text("Error: ", style="bold red")
        line.append(printable(sentence), style="not bold default")
        err.print(line)


def plain(value: Any) -> str:
    """A value in a line of text: as JSON, or a dash where there is none."""
    return "-" if value is None else json.dumps(to_plain_json(value), ensure_ascii=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner on stderr while something takes its time, where a person is looking."""
    if not err.is_terminal:
        yield
        return
    with err.status(f"{what} …"):
        yield
