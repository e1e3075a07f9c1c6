"""`contenthub task` and `contenthub execution` on a machine without a server."""

from __future__ import annotations

import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.integration.command_line import ContentHub, until

PARAMS = '{"account_id": 1, "topic": "人工智能"}'
NOBODY = '{"account_id": 999, "topic": "人工智能"}'
ENDLESS = f'["{sys.executable}", "-c", "import time; time.sleep(600)"]'


@pytest.fixture(scope="module")
def contenthub(tmp_path_factory: pytest.TempPathFactory) -> ContentHub:
    """One database for the module; every test has tasks of its own."""
    return ContentHub(tmp_path_factory.mktemp("cli"), {"GENERATOR_COMMAND": ENDLESS})


def create(contenthub: ContentHub, name: str, params: str = PARAMS, *options: str) -> dict[str, object]:
    created: dict[str, object] = contenthub(
        *("task", "create", "--name", name, "--type", "content_generation", "--params", params, "--json"), *options
    ).json
    return created


def test_a_task_is_created_with_its_schedule_and_policies(contenthub: ContentHub) -> None:
    created = create(
        contenthub,
        "weekdays",
        PARAMS,
        *("--cron", "0 9 * * 1-5", "--timezone", "Asia/Shanghai", "--overlap", "queue", "--misfire", "skip"),
        *("--timeout", "1m30s", "--max-attempts", "3", "--backoff", "10s", "--retry-on", "TimeoutError"),
    )
    shown = contenthub("task", "show", "weekdays", "--json").json
    assert shown == created
    assert shown["schedule"] == {"type": "cron", "expression": "0 9 * * 1-5"}
    assert shown["next_run_at"].endswith("01:00:00Z")  # 09:00 in Shanghai
    assert (shown["overlap_policy"], shown["misfire_policy"], shown["timeout_seconds"]) == ("queue", "skip", 90)
    assert shown["retry"] == shown["retry"] | {
        "max_attempts": 3,
        "backoff_seconds": 10,
        "retry_on": ["TimeoutError"],
    }


def test_every_wrong_field_is_named_and_nothing_is_stored(contenthub: ContentHub) -> None:
    ran = contenthub(
        *("task", "create", "--name", "wrong", "--type", "content_generation", "--cron", "0 25 * * *"),
        *("--timezone", "Mars/Olympus"),
        code=1,
    )
    assert "hour '25' is wrong" in ran.err
    assert "timezone: 'Mars/Olympus' is no IANA time zone" in ran.err
    assert "see `contenthub task list`" in contenthub("task", "show", "wrong", code=1).err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--params", "{"),
        ("--params", "[1]"),
        ("--params", "@no-such-file.json"),
        ("--every", "soon"),
        ("--every", "5m", "--cron", "@daily"),
    ],
)
def test_what_cannot_be_read_is_wrong_usage(contenthub: ContentHub, arguments: tuple[str, ...]) -> None:
    contenthub("task", "create", "--name", "unread", "--type", "content_generation", *arguments, code=2)


def test_secrets_never_reach_the_output(contenthub: ContentHub) -> None:
    params = '{"url": "https://example.org/", "headers": {"Authorization": "Bearer s3cr3t"}}'
    created = contenthub(
        *("task", "create", "--name", "secret", "--type", "http_request", "--params", params, "--json")
    )
    shown = contenthub("task", "show", "secret")
    exported = contenthub("task", "export")
    for ran in (created, shown, exported):
        assert "s3cr3t" not in ran.out + ran.err
    assert created.json["params"]["headers"] == {"Authorization": "******"}


def test_a_run_without_a_server_happens_in_this_process_and_tells_its_outcome(contenthub: ContentHub) -> None:
    create(contenthub, "once")
    execution = contenthub("task", "run", "once", "--json").json
    assert (execution["state"], execution["trigger"], execution["triggered_by"]) == ("success", "manual", "cli")
    assert execution["result"]["data"]["word_count"] > 0
    shown = contenthub("execution", "show", str(execution["id"]), "--json").json
    assert [attempt["status"] for attempt in shown["attempts"]] == ["success"]
    listed = contenthub("execution", "list", "--task", "once", "--state", "success", "--json").json
    assert [item["id"] for item in listed] == [execution["id"]]


def test_a_run_that_fails_is_exit_code_1_and_says_why(contenthub: ContentHub) -> None:
    create(contenthub, "fails", NOBODY, "--max-attempts", "1")
    ran = contenthub("task", "run", "fails", code=1)
    assert "is failed: NotFound: account 999 does not exist" in ran.err
    assert ran.out == ""


def test_params_of_a_run_replace_the_stored_ones_once(contenthub: ContentHub) -> None:
    create(contenthub, "replaced")
    refused = contenthub("task", "run", "replaced", "--params", '{"topic": "x"}', code=1)
    assert "params.account_id" in refused.err
    run = contenthub("task", "run", "replaced", "--params", '{"account_id": 1, "topic": "AI"}', "--json").json
    assert run["params"]["topic"] == "AI"
    assert contenthub("task", "show", "replaced", "--json").json["params"]["topic"] == "人工智能"


def test_a_detached_run_waits_for_a_server_and_other_commands_leave_it_alone(contenthub: ContentHub) -> None:
    create(contenthub, "later")
    ran = contenthub("task", "run", "later", "--detach", "--json")
    assert ran.json["state"] == "pending"
    assert "contenthub serve" in ran.err
    create(contenthub, "other")
    contenthub("task", "run", "other")
    assert contenthub("execution", "show", str(ran.json["id"]), "--json").json["state"] == "pending"


def test_a_run_fires_no_schedules(contenthub: ContentHub) -> None:
    create(contenthub, "due", PARAMS, "--every", "1s")
    create(contenthub, "asked")
    contenthub("task", "run", "asked")
    assert contenthub("execution", "list", "--task", "due", "--json").json == []


def test_a_run_that_outlasts_its_timeout_is_cancelled_where_no_server_has_it(contenthub: ContentHub) -> None:
    create(contenthub, "endless", '{"account_id": 1, "topic": "x", "generator": "command"}')
    ran = contenthub("task", "run", "endless", "--timeout", "1s", code=1)
    assert "was not over after 1 s; it was cancelled" in ran.err
    listed = contenthub("execution", "list", "--task", "endless", "--json").json
    assert [execution["state"] for execution in listed] == ["cancelled"]


def test_ctrl_c_cancels_a_run_where_no_server_has_it(contenthub: ContentHub) -> None:
    create(contenthub, "interrupted", '{"account_id": 1, "topic": "x", "generator": "command"}')
    with contenthub.started("task", "run", "interrupted") as process:
        until(lambda: _states(contenthub.folder, "interrupted") == ["running"])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert _states(contenthub.folder, "interrupted") == ["cancelled"]


def _states(folder: Path, name: str) -> list[str]:
    with sqlite3.connect(folder / "contenthub.db") as connection:
        rows = connection.execute("SELECT state FROM task_executions WHERE task_name = ?", (name,)).fetchall()
    connection.close()
    return [state for (state,) in rows]


def test_a_failed_execution_is_retried_as_a_further_attempt(contenthub: ContentHub) -> None:
    create(contenthub, "retried", NOBODY, "--max-attempts", "1")
    contenthub("task", "run", "retried", code=1)
    (failed,) = contenthub("execution", "list", "--task", "retried", "--json").json
    again = contenthub("execution", "retry", str(failed["id"]), "--json", code=1).json
    assert (again["id"], again["attempt"], again["state"]) == (failed["id"], 2, "failed")


def test_a_waiting_execution_is_cancelled_and_only_once(contenthub: ContentHub) -> None:
    create(contenthub, "called-off")
    execution = contenthub("task", "run", "called-off", "--detach", "--json").json
    cancelled = contenthub("execution", "cancel", str(execution["id"]), "--json").json
    assert cancelled["state"] == "cancelled"
    assert "cannot cancel" in contenthub("execution", "cancel", str(execution["id"]), code=1).err


def test_log_lines_are_json_lines_and_follow_ends_with_the_execution(contenthub: ContentHub) -> None:
    params = '{"account_id": 1, "topic": "quantum basket weaving"}'  # not in the feed: the executor says so
    create(contenthub, "speaks", params)
    execution = contenthub("task", "run", "speaks", "--json").json
    plain = contenthub("execution", "logs", str(execution["id"]), "--follow").out
    lines = contenthub("execution", "logs", str(execution["id"]), "--json").out.splitlines()
    assert "WARNING" in plain
    assert all(line.startswith("{") for line in lines)
    assert len(lines) == len(plain.splitlines())


def test_pause_and_resume_and_the_sentence_that_explains(contenthub: ContentHub) -> None:
    create(contenthub, "held", PARAMS, "--cron", "0 9 * * *")
    assert contenthub("task", "pause", "held", "--json").json["is_active"] is False
    assert "is paused" in contenthub("task", "explain", "held").out
    resumed = contenthub("task", "resume", "held", "--json").json
    assert resumed["next_run_at"] is not None
    explained = contenthub("task", "explain", "held", "--at", "2999-01-01T09:00:00", "--json").json
    assert explained["at"] == "2999-01-01T09:00:00Z"
    assert "still to come" in explained["explanation"]


def test_delete_asks_first_and_keeps_the_task_without_an_answer(contenthub: ContentHub) -> None:
    task = create(contenthub, "kept")
    contenthub("task", "delete", "kept", code=1, stdin="n\n")
    contenthub("task", "delete", "kept", code=1)
    assert contenthub("task", "show", str(task["id"]), "--json").json["name"] == "kept"
    contenthub("task", "delete", "kept", "--yes")
    contenthub("task", "show", "kept", code=1)


def test_a_list_says_that_it_is_not_all(contenthub: ContentHub) -> None:
    for name in ("page-a", "page-b"):
        create(contenthub, name)
    ran = contenthub("task", "list", "--search", "page-", "--limit", "1", "--json")
    assert [task["name"] for task in ran.json] == ["page-a"]
    assert "Only the first 1" in ran.err


def test_text_from_outside_does_not_steer_the_terminal(contenthub: ContentHub) -> None:
    create(contenthub, "harmless", PARAMS, "--description", "\x1b[2Jcleared [red]no markup[/red]")
    shown = contenthub("task", "show", "harmless").out
    assert "\x1b" not in shown
    assert "[red]no markup[/red]" in shown


def test_import_is_all_or_nothing_and_diff_writes_nothing(contenthub: ContentHub, tmp_path: Path) -> None:
    def tasks() -> list[dict[str, object]]:
        listed: list[dict[str, object]] = contenthub("task", "list", "--search", "yaml-", "--json").json
        return listed

    file = tmp_path / "tasks.yaml"
    good = "- {name: yaml-good, task_type: content_generation, params: {account_id: 1, topic: a}}\n"
    file.write_text(good + "- {name: yaml-bad, task_type: content_generation, schedule: 0 25 * * *}\n")
    refused = contenthub("task", "import", str(file), code=1)
    assert "tasks[yaml-bad].schedule" in refused.err
    file.write_text(good + "- {name: yaml-bad, task_type: nope}\n")
    assert "tasks[yaml-bad].task_type" in contenthub("task", "import", str(file), code=1).err
    file.write_text(good)
    shown = contenthub("task", "import", str(file), "--diff", code=3)
    assert "+ yaml-good" in shown.out
    assert tasks() == []
    contenthub("task", "import", str(file))
    assert [task["name"] for task in tasks()] == ["yaml-good"]
    assert "No changes" in contenthub("task", "import", str(file), "--diff").out


def test_what_is_exported_is_imported_without_a_change(contenthub: ContentHub, tmp_path: Path) -> None:
    create(contenthub, "zoned", PARAMS, "--cron", "0 9 * * *", "--timezone", "Asia/Tokyo")
    file = tmp_path / "all.yaml"
    contenthub("task", "export", str(file))
    assert "name: zoned" in file.read_text()
    changes = contenthub("task", "import", str(file), "--diff", "--prune", "--json").json
    assert changes == {"written": False, "changes": []}
