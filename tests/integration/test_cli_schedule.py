"""`contenthub schedule preview`, and what the command line does before any database is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command_line import ROOT, ContentHub


@pytest.fixture(scope="module")
def contenthub(tmp_path_factory: pytest.TempPathFactory) -> ContentHub:
    # No database could be opened here: these commands must not try.
    return ContentHub(tmp_path_factory.mktemp("cli"), {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})


def test_preview_shows_fires_with_the_offset_of_the_zone_at_each_of_them(contenthub: ContentHub) -> None:
    shown = contenthub(
        *("schedule", "preview", "0 9 * * 1-5", "--timezone", "Europe/Berlin"),
        *("--from", "2026-03-27T00:00:00", "--count", "2", "--json"),
    ).json
    assert shown == {
        "fires": ["2026-03-27T09:00:00+01:00", "2026-03-30T09:00:00+02:00"],
        "description": "At 09:00, Monday through Friday",
        "warnings": [],
    }


def test_preview_warns_beside_the_fires_not_among_them(contenthub: ContentHub) -> None:
    ran = contenthub(
        *("schedule", "preview", "30 2 * * *", "--timezone", "Europe/Berlin"),
        *("--from", "2026-03-27T00:00:00+01:00", "--count", "1"),
    )
    assert "2026-03-27 02:30:00+01:00" in ran.out
    assert "DST" not in ran.out
    assert "2026-03-29 02:30 does not exist in Europe/Berlin" in ran.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("0 25 * * *",), "Error: schedule: hour '25' is wrong: it takes 0-23"),
        (("@daily", "--timezone", "Mars/Olympus"), "Error: timezone: 'Mars/Olympus' is no IANA time zone"),
        (("@daily", "--count", "0"), "Error: count: count is from 1 to 1000"),
    ],
)
def test_preview_names_the_wrong_field(contenthub: ContentHub, arguments: tuple[str, ...], sentence: str) -> None:
    ran = contenthub("schedule", "preview", *arguments, "--json", code=1)
    assert ran.err.startswith(sentence)
    assert ran.out == ""


def test_a_moment_that_is_none_is_wrong_usage(contenthub: ContentHub) -> None:
    assert "no ISO 8601 moment" in contenthub("schedule", "preview", "@daily", "--from", "soon", code=2).err


def test_a_wrong_setting_is_named_by_its_variable(contenthub: ContentHub) -> None:
    ran = contenthub("task", "list", code=1, SCHEDULER_CONCURRENCY="many")
    assert ran.err.startswith("Error: SCHEDULER_CONCURRENCY: ")


def test_a_database_out_of_reach_is_one_sentence_with_a_remedy(contenthub: ContentHub) -> None:
    ran = contenthub("task", "list", code=1)
    assert ran.err.startswith("Error: the database cannot be used: ")
    assert "contenthub doctor" in ran.err
    assert ran.err.count("\n") == 1


def test_doctor_fails_where_the_database_is_out_of_reach_and_says_the_remedy(contenthub: ContentHub) -> None:
    findings = {item["check"]: item for item in contenthub("doctor", "--json", code=1).json["findings"]}
    assert findings["settings"]["level"] == "ok"
    assert findings["time zones"]["level"] == "ok"
    assert findings["database"]["level"] == "fail"
    assert "DATABASE_URL" in findings["database"]["remedy"]


def test_usage_and_previews_start_without_sqlalchemy_and_fastapi(tmp_path: Path) -> None:
    # Both together are three quarters of the start-up time of a command.
    code = "import sys, app.cli.main; print(sorted({'sqlalchemy', 'fastapi', 'alembic'} & sys.modules.keys()))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[]\n"
