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


def moment_option(name: str, help: str) -> Any:  # noqa: A002 - typer's own word
    """An option whose value is a moment."""
    return typer.Option(name, help=help, metavar="ISO", parser=iso_moment)


def rate_limit(text: str) -> dict[str, Any]:
    """`10/60s`: 10 in 60 seconds; `10/60s/account_id`: for each value of that param; `10/60s/account_id/3`: with a
    burst of 3, as in `10/60s//3` without a param.

    Raises:
        typer.BadParameter: it is none of these.
    """
    parts = text.split("/")
    if not 2 <= len(parts) <= 4 or not parts[0].isdecimal() or (len(parts) == 4 and not parts[3].isdecimal()):
        raise typer.BadParameter(f"{text!r} is no rate limit; write one such as 10/60s or 10/60s/account_id")
    return {
        "limit": int(parts[0]),
        "per_seconds": duration(parts[1]),
        "key": parts[2] or None if len(parts) > 2 else None,
        "burst": int(parts[3]) if len(parts) == 4 else None,
    }


def run_window(text: str) -> dict[str, Any]:
    """`09:00-18:00`, `mon-fri 09:00-18:00` or `sat,sun 22:00-06:00`.

    Raises:
        typer.BadParameter: it is none of these.
    """
    *days, hours = text.lower().split()
    opens, dash, closes = hours.partition("-")
    if len(days) > 1 or not dash:
        raise typer.BadParameter(f"{text!r} is no window; write one such as 'mon-fri 09:00-18:00'")
    return {"opens": opens, "closes": closes, "days": _days(days[0]) if days else []}


def _days(text: str) -> list[str]:
    week = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in week or (last or first) not in week:
            raise typer.BadParameter(f"{part!r} is no day of the week; write mon-fri, or sat,sun")
        start, end = week.index(first), week.index(last or first)
        found += [week[(start + step) % 7] for step in range((end - start) % 7 + 1)]
    return list(dict.fromkeys(found))


def calendar(text: str) -> dict[str, Any]:
    """`CN`, or `DE-BY` with a subdivision, and dates, all separated by commas: `CN,2030-01-02`; `+2030-02-03` is a
    date on which it is open all the same.

    Raises:
        typer.BadParameter: it is none of these.
    """
    found: dict[str, Any] = {"closed": [], "open": []}
    for part in (item.strip() for item in text.split(",")):
        if re.fullmatch(r"\+?\d{4}-\d{2}-\d{2}", part):
            found["open" if part.startswith("+") else "closed"].append(part.removeprefix("+"))
        elif re.fullmatch(r"[A-Za-z]{2,3}(-\w{1,10})?", part) and "country" not in found:
            country, _, subdivision = part.partition("-")
            found |= {"country": country, "subdivision": subdivision or None}
        else:
            raise typer.BadParameter(f"{part!r} is neither a country nor a date; write CN, DE-BY or 2030-01-02")
    return found


def json_lines(text: str) -> dict[int, dict[str, Any]]:
    """One JSON object a line, by the number of its line; empty lines are left out.

    Raises:
        typer.BadParameter: a line is none; its number is named.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise typer.BadParameter(f"line {number}: no JSON: {error}") from None
        if not isinstance(value, dict):
            raise typer.BadParameter(f'line {number}: must be a JSON object such as \'{{"task_type": "x"}}\'')
        found[number] = value
    return found


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
