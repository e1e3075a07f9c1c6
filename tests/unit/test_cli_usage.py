"""Wrong usage of the command line: exit code 2, and the option is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from app.cli import flow
from app.cli.main import app
from app.scheduler.breaker import Phase
from app.scheduler.flow_status import CircuitStatus, FlowStatus

CREATE = ("task", "create", "--name", "x", "--type", "y")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ((*CREATE, "--params", "[1]"), "--params"),
        ((*CREATE, "--params", "{"), "--params"),
        ((*CREATE, "--params", "@/no/such/file"), "--params"),
        ((*CREATE, "--every", "soon"), "--every"),
        ((*CREATE, "--every", "-5"), "--every"),
        ((*CREATE, "--timeout", "1 fortnight"), "--timeout"),
        ((*CREATE, "--jitter", "x"), "--jitter"),
        ((*CREATE, "--backoff", "x"), "--backoff"),
        ((*CREATE, "--misfire-grace", "x"), "--misfire-grace"),
        ((*CREATE, "--every", "5m", "--cron", "* * * * *"), "--cron and --every"),
        (("task", "run", "x", "--timeout", "x"), "--timeout"),
        (("task", "backfill", "x", "--from", "yesterday"), "--from"),
        (("task", "backfill", "x"), "--from"),
        (("task", "backfill", "x", "--cancel", "--from", "2030-01-01"), "--cancel"),
        (("task", "backfill", "x", "--from", "2030-01-01", "--to", "soon"), "--to"),
        (("execution", "signal", "1", "go", "--payload", "{"), "--payload"),
        (("mcp", "--role", "viewer", "--token", "x"), "--role and --token"),
        (("task", "run", "x", "--params", "5"), "--params"),
        (("task", "explain", "x", "--at", "yesterday"), "--at"),
        (("schedule", "preview", "0 9 * * *", "--from", "yesterday"), "--from"),
        (("execution", "retry", "1", "--timeout", "x"), "--timeout"),
    ],
)
def test_a_wrong_value_names_its_option(arguments: tuple[str, ...], option: str) -> None:
    ran = CliRunner().invoke(app, list(arguments))
    assert ran.exit_code == 2
    assert option in ran.output
    assert "Invalid value for" in ran.output


def test_moments_to_look_from_are_on_the_clock_of_the_zone() -> None:
    asked = [
        "schedule",
        "preview",
        "0 9 * * *",
        "--from",
        "2030-01-01",
        "--timezone",
        "Asia/Shanghai",
        "--count",
        "1",
    ]
    assert "2030-01-01 09:00:00+08:00" in CliRunner().invoke(app, asked).output


def test_a_circuit_that_counts_nothing_names_no_share(capsys: pytest.CaptureFixture[str]) -> None:
    """An open one has forgotten the attempts that opened it."""
    opened = CircuitStatus("letter", Phase.OPEN, 0, 0, None, None, 2, None)
    flow._show(FlowStatus([], [], [opened]), "UTC")
    assert " of " not in capsys.readouterr().out
    flow._show(FlowStatus([], [], [replace(opened, phase=Phase.CLOSED, failures=1, attempts=4)]), "UTC")
    assert "1 of 4" in capsys.readouterr().out
