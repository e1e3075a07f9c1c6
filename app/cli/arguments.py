"""What is typed on the command line, read into values: durations, moments, JSON.

Given to an option as its `parser`, so that a refusal names the option.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `1h30m`, `2d` or `1w`.

    Raises:
        typer.BadParameter: it is none of these.
    """
    folded = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", folded):
        return float(folded)
    if re.fullmatch(rf"(?:{_DURATION_PART.pattern})+", folded):
        return sum(float(amount) * _UNITS[unit] for amount, unit in _DURATION_PART.findall(folded))
    raise typer.BadParameter(f"{text!r} is no duration; write one such as 30s, 5m, 1h30m, 2d or 1w")


def duration_option(name: str, help: str) -> Any:  # noqa: A002 - typer's own word
    """An option whose value is a duration, read into seconds."""
    return typer.Option(name, help=help, metavar="DURATION", parser=duration)


def iso_moment(text: str) -> datetime:
    """An ISO 8601 moment; without an offset it is left to the reader what zone it is in.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 moment; write one such as 2030-01-31T09:00:00+08:00"
        ) from None


def json_value(text: str) -> Any:
    """JSON: as it is typed, from a file (`@payload.json`), or from stdin (`@-`).

    Raises:
        typer.BadParameter: the file cannot be read, or it is no JSON.
    """
    try:
        return json.loads(_content(text[1:]) if text.startswith("@") else text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"no JSON: {error}; write an object such as '{{\"account_id\": 1}}'") from None
    except RecursionError:
        raise typer.BadParameter("the JSON is nested too deeply") from None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object: as it is typed, from a file (`@params.json`), or from stdin (`@-`).

    Raises:
        typer.BadParameter: the file cannot be read, or it is no JSON object.
    """
    value = json_value(text)
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object such as '{\"account_id\": 1}'")
    return value


def _content(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{name} cannot be read: {error}") from None


def read_file(path: str) -> str:
    """The text of a file, or of stdin for `-`.

    Raises:
        typer.BadParameter: it cannot be read.
    """
    return _content(path)
