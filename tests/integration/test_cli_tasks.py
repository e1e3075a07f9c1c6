"""`contenthub task` and `contenthub execution` on a machine without a server."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.command_line import ContentHub, until

PARAMS = '{"account_id": 1, "topic": "人工智能"}'
COMMAND = '{"account_id": 1, "topic": "x", "generator": "command"}'
NOBODY = '{"account_id": 999, "topic": "人工智能"}'
ENDLESS = f'["{sys.executable}", "-c", "import time; time.sleep(600)"]'


TASKS = f"""
- {{name: once, task_type: content_generation, params: {PARAMS}}}
- {{name: fails, task_type: content_generation, params: {NOBODY}, retry: {{max_attempts: 1}}}}
- {{name: hasty, task_type: content_generation, params: {PARAMS}}}
- {{name: later, task_type: content_generation, params: {PARAMS}}}
- {{name: due, task_type: content_generation, params: {PARAMS}, schedule: {{type: interval, seconds: 1}}}}
- {{name: endless, task_type: content_generation, params: {COMMAND}}}
- {{name: interrupted, task_type: content_generation, params: {COMMAND}}}
- {{name: held, task_type: content_generation, params: {PARAMS}, schedule: 0 9 * * *, timezone: Asia/Tokyo}}
- {{name: kept, task_type: content_generation, params: {PARAMS}}}
- {{name: signalled, task_type: content_generation, params: {PARAMS}}}
"""


@pytest.fixture(scope="module")
def contenthub(tmp_path_factory: pytest.TempPathFactory) -> ContentHub:
    """One database for the module; every test has tasks of its own."""
    contenthub = ContentHub(tmp_path_factory.mktemp("cli"), {"GENERATOR_COMMAND": ENDLESS})
    contenthub("task", "import", "-", stdin=TASKS)
    return contenthub


def stored(contenthub: ContentHub, query: str, *values: object) -> list[tuple[object, ...]]:
    """What the database holds, asked beside the command line."""
    with closing(sqlite3.connect(contenthub.folder / "contenthub.db")) as connection:
        return connection.execute(query, values).fetchall()


def states(contenthub: ContentHub, name: str) -> list[object]:
    rows = stored(contenthub, "SELECT state FROM task_executions WHERE task_name = ? ORDER BY id", name)
    return [state for (state,) in rows]


def test_a_task_is_created_with_its_schedule_and_policies(contenthub: ContentHub) -> None:
    created = contenthub(
        *("task", "create", "--name", "weekdays", "--type", "content_generation", "--params", PARAMS, "--json"),
        *("--cron", "0 9 * * 1-5", "--timezone", "Asia/Shanghai", "--overlap", "queue", "--misfire", "skip"),
        *("--timeout", "1m30s", "--max-attempts", "3", "--backoff", "10s", "--retry-on", "TimeoutError"),
    ).json
    assert contenthub("task", "show", "weekdays", "--json").json == created
    assert created["schedule"] == {"type": "cron", "expression": "0 9 * * 1-5"}
    assert created["next_run_at"].endswith("01:00:00Z")  # 09:00 in Shanghai
    assert (created["overlap_policy"], created["misfire_policy"]) == ("queue", "skip")
    assert created["timeout_seconds"] == 90
    assert created["retry"] == created["retry"] | {
        "max_attempts": 3,
        "backoff_seconds": 10,
        "retry_on": ["TimeoutError"],
    }


def test_the_next_run_that_is_told_is_one_at_which_the_task_is_open(contenthub: ContentHub) -> None:
    made = contenthub(
        *("task", "create", "--name", "nightly", "--type", "content_generation", "--params", PARAMS),
        *("--cron", "0 * * * *", "--window", "22:00-22:30", "--timezone", "UTC"),
    ).out
    assert "it runs next at" in made
    assert "22:00" in made
    assert "22:00" in contenthub("task", "show", "nightly").out.split("next run at")[1].splitlines()[0]
    refused = contenthub(
        *("task", "create", "--name", "noon", "--type", "content_generation", "--params", PARAMS),
        *("--cron", "0 12 * * *", "--window", "22:00-06:00"),
        code=1,
    )
    assert "never runs: the task is closed at every fire" in refused.err


def test_every_wrong_field_is_named_and_nothing_is_stored(contenthub: ContentHub) -> None:
    ran = contenthub(
        *("task", "create", "--name", "wrong", "--type", "content_generation", "--cron", "0 25 * * *"),
        *("--timezone", "Mars/Olympus"),
        code=1,
    )
    assert "hour '25' is wrong" in ran.err
    assert "timezone: 'Mars/Olympus' is no IANA time zone" in ran.err
    assert stored(contenthub, "SELECT id FROM scheduled_tasks WHERE name = 'wrong'") == []


def test_an_unknown_task_is_named_with_the_way_to_the_known_ones(contenthub: ContentHub) -> None:
    ran = contenthub("task", "show", "nobody", code=1)
    assert ran.err == "Error: task nobody does not exist; see `contenthub task list`\n"


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


def test_a_run_without_a_server_happens_in_this_process_and_fires_no_schedules(contenthub: ContentHub) -> None:
    execution = contenthub("task", "run", "once", "--json").json
    assert (execution["state"], execution["trigger"], execution["triggered_by"]) == ("success", "manual", "cli")
    assert execution["result"]["data"]["word_count"] > 0
    shown = contenthub("execution", "show", str(execution["id"]), "--json").json
    assert [attempt["status"] for attempt in shown["attempts"]] == ["success"]
    listed = contenthub("execution", "list", "--task", "once", "--state", "success", "--json").json
    assert [item["id"] for item in listed] == [execution["id"]]
    assert states(contenthub, "due") == []


def test_a_run_that_fails_is_exit_code_1_says_why_and_is_retried_as_a_further_attempt(
    contenthub: ContentHub,
) -> None:
    ran = contenthub("task", "run", "fails", code=1)
    assert "is failed: NotFound: account 999 does not exist" in ran.err
    assert ran.out == ""
    ((execution_id,),) = stored(contenthub, "SELECT id FROM task_executions WHERE task_name = 'fails'")
    again = contenthub("execution", "retry", str(execution_id), "--json", code=1).json
    assert (again["id"], again["attempt"], again["state"]) == (execution_id, 2, "failed")


def test_params_of_a_run_replace_the_stored_ones_once(contenthub: ContentHub) -> None:
    refused = contenthub("task", "run", "once", "--params", '{"topic": "x"}', code=1)
    assert "params.account_id" in refused.err
    run = contenthub("task", "run", "once", "--params", '{"account_id": 1, "topic": "AI"}', "--json").json
    assert run["params"]["topic"] == "AI"
    ((params,),) = stored(contenthub, "SELECT params FROM scheduled_tasks WHERE name = 'once'")
    assert "人工智能" in str(params)


def test_a_detached_run_is_left_alone_by_other_commands_and_cancelled_only_once(contenthub: ContentHub) -> None:
    detached = contenthub("task", "run", "later", "--detach", "--json")
    assert "contenthub serve" in detached.err
    contenthub("task", "run", "once")
    assert states(contenthub, "later") == ["pending"]
    execution_id = str(detached.json["id"])
    assert contenthub("execution", "cancel", execution_id, "--json").json["state"] == "cancelled"
    assert "cannot be cancelled" in contenthub("execution", "cancel", execution_id, code=1).err


def test_a_run_that_outlasts_its_timeout_is_cancelled_where_no_server_has_it(contenthub: ContentHub) -> None:
    ran = contenthub("task", "run", "endless", "--timeout", "1s", code=1)
    assert "was not over after 1 s; it was cancelled" in ran.err
    assert states(contenthub, "endless") == ["cancelled"]


def test_ctrl_c_cancels_a_run_where_no_server_has_it(contenthub: ContentHub) -> None:
    with contenthub.started("task", "run", "interrupted") as process:
        until(lambda: states(contenthub, "interrupted") == ["running"])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert states(contenthub, "interrupted") == ["cancelled"]


def test_log_lines_are_json_lines_and_follow_ends_with_the_execution(contenthub: ContentHub) -> None:
    params = '{"account_id": 1, "topic": "quantum basket weaving"}'  # not in the feed: the executor says so
    execution = contenthub("task", "run", "once", "--params", params, "--json").json
    plain = contenthub("execution", "logs", str(execution["id"]), "--follow").out
    lines = contenthub("execution", "logs", str(execution["id"]), "--json").out.splitlines()
    assert "WARNING" in plain
    assert all(line.startswith("{") for line in lines)
    assert len(lines) == len(plain.splitlines())


def test_pause_and_resume_and_the_sentence_that_explains(contenthub: ContentHub) -> None:
    assert contenthub("task", "pause", "held", "--json").json["is_active"] is False
    assert "is paused" in contenthub("task", "explain", "held").out
    assert (
        contenthub("task", "resume", "held", "--json").json["next_run_at"].endswith("00:00:00Z")
    )  # 09:00 in Tokyo
    explained = contenthub("task", "explain", "held", "--at", "2999-01-01T09:00:00", "--json").json
    assert explained["at"] == "2999-01-01T00:00:00Z"
    assert "still to come" in explained["explanation"]


def test_delete_asks_first_and_keeps_the_task_without_an_answer(contenthub: ContentHub) -> None:
    kept = "SELECT name FROM scheduled_tasks WHERE name = 'kept'"
    contenthub("task", "delete", "kept", code=1, stdin="n\n")
    contenthub("task", "delete", "kept", code=1)
    assert stored(contenthub, kept) == [("kept",)]
    contenthub("task", "delete", "kept", "--yes")
    assert stored(contenthub, kept) == []


def test_who_deletes_what_the_code_declares_is_told_that_it_comes_back(contenthub: ContentHub) -> None:
    for name, declared in (("in code", '{"name": "in code"}'), ("by hand", None)):
        contenthub("task", "create", "--name", name, "--type", "content_generation", "--params", PARAMS)
        with closing(sqlite3.connect(contenthub.folder / "contenthub.db")) as connection:
            connection.execute("UPDATE scheduled_tasks SET declared = ? WHERE name = ?", (declared, name))
            connection.commit()
        told = contenthub("task", "delete", name, "--yes").err
        assert ("comes back at the next start" in told) is (declared is not None)


def test_a_list_says_that_it_is_not_all(contenthub: ContentHub) -> None:
    ran = contenthub("task", "list", "--limit", "1", "--json")
    assert [task["name"] for task in ran.json] == ["once"]
    assert "Only the first 1" in ran.err


def test_text_from_outside_does_not_steer_the_terminal(contenthub: ContentHub) -> None:
    contenthub(
        *("task", "create", "--name", "harmless", "--type", "content_generation", "--params", PARAMS),
        *("--description", "\x1b[2Jcleared [red]no markup[/red]"),
    )
    shown = contenthub("task", "show", "harmless").out
    assert "\x1b" not in shown
    assert "[red]no markup[/red]" in shown


def test_import_is_all_or_nothing_and_diff_writes_nothing(contenthub: ContentHub) -> None:
    names = "SELECT name FROM scheduled_tasks WHERE name LIKE 'yaml-%'"
    good = f"- {{name: yaml-good, task_type: content_generation, params: {PARAMS}}}\n"
    refused = contenthub("task", "import", "-", stdin=good + "- {name: yaml-bad, task_type: nope}\n", code=1)
    assert "tasks[yaml-bad].task_type: no executor is registered for 'nope'" in refused.err
    shown = contenthub("task", "import", "-", "--diff", stdin=good, code=3)
    assert "+ yaml-good" in shown.out
    assert stored(contenthub, names) == []
    contenthub("task", "import", "-", stdin=good)
    assert stored(contenthub, names) == [("yaml-good",)]


def test_what_is_exported_is_imported_without_a_change(contenthub: ContentHub, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    contenthub("task", "export", str(file))
    assert "name: held" in file.read_text()
    changes = contenthub("task", "import", str(file), "--diff", "--prune", "--json").json
    assert changes == {"written": False, "changes": []}


def test_a_wrong_line_of_a_bulk_is_named_by_its_number(contenthub: ContentHub, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    right = json.dumps({"task_type": "content_generation", "params": json.loads(PARAMS)})
    file.write_text(f"{right}\n\n\n{json.dumps({'task_type': 'content_generation', 'params': {}})}\n")
    refused = contenthub("execution", "bulk", str(file), code=1).err
    assert "line 4: params.topic" in refused
    assert "items." not in refused


def test_a_signal_is_sent_from_the_command_line_and_shown_with_steps_and_children(contenthub: ContentHub) -> None:
    contenthub("task", "run", "signalled")
    ((parent,),) = stored(contenthub, "SELECT max(id) FROM task_executions WHERE task_name = 'signalled'")
    path = contenthub.folder / "contenthub.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE task_executions SET state = 'suspended', finished_at = NULL WHERE id = ?", (parent,)
        )
        connection.execute(
            "INSERT INTO execution_steps (execution_id, kind, name, position, attempt, started_at)"
            " VALUES (?, 'signal', 'word', 0, 1, '2030-01-07 09:00:00')",
            (parent,),
        )
        connection.execute(
            "INSERT INTO task_executions (task_type, state, parent_id, child_key) VALUES ('w', 'failed', ?, 'it')",
            (parent,),
        )
        connection.commit()
    sent = contenthub("execution", "signal", str(parent), "word", "--payload", '["yes", 1]', "--json").json
    assert (sent["payload"], sent["signalled_by"]) == (["yes", 1], "cli")
    shown = contenthub("execution", "show", str(parent), "--json").json
    assert [step["name"] for step in shown["steps"]] == ["word"]
    assert [child["child_key"] for child in shown["children"]] == ["it"]
    table = contenthub("execution", "show", str(parent)).out
    for title in ("Steps", "Signals", "Children"):
        assert title in table
    assert "the last" not in table
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO task_executions (task_type, state, parent_id, child_key) VALUES ('w', 'failed', ?, ?)",
            [(parent, f"it {number}") for number in range(200)],
        )
        connection.commit()
    assert contenthub("execution", "show", str(parent), "--json").json["child_count"] == 201
    table = contenthub("execution", "show", str(parent)).out
    assert "Children (the last 200 of 201)" in table
    arguments = table.partition("More: contenthub ")[2].partition("\n")[0].split()
    assert len(contenthub(*arguments, "--json").json) == 201
    assert "no JSON" in contenthub("execution", "signal", str(parent), "word", "--payload", "{", code=2).err
    contenthub("execution", "cancel", str(parent))
    assert "takes no signal" in contenthub("execution", "signal", str(parent), "word", code=1).err


def test_a_run_that_ends_while_it_is_given_up_is_told_as_it_ended(contenthub: ContentHub) -> None:
    """Too late to be cancelled: then it has succeeded, and saying anything else would be a lie."""
    with contenthub.started("task", "run", "hasty", "--timeout", "0") as command:
        _, err = command.communicate(timeout=60)
    (state,) = states(contenthub, "hasty")
    assert (command.returncode == 0) == (state == "success"), (state, err)
    assert ("it was cancelled" in err) == (state == "cancelled"), (state, err)


def test_the_past_of_a_task_is_previewed_and_made_up_for_once(contenthub: ContentHub) -> None:
    contenthub(
        "task",
        "create",
        *("--name", "hourly", "--type", "content_generation", "--params", PARAMS),
        *("--cron", "0 * * * *", "--timezone", "Asia/Shanghai"),
    )
    # Without an offset the range is in the task's zone: from 08:00 until before 12:00 there.
    asked = ("task", "backfill", "hourly", "--from", "2026-01-05T08:00", "--to", "2026-01-05T12:00")
    assert "Would record 4 fires" in contenthub(*asked, "--dry-run").out
    assert contenthub("execution", "list", "--task", "hourly", "--json").json == []
    made = contenthub(*asked, "--json").json
    assert (made["count"], made["first"]) == (4, "2026-01-05T00:00:00Z")
    again = contenthub(*asked, "--json").json
    assert (again["count"], again["known_count"]) == (0, 4)
    assert {one["trigger"] for one in contenthub("execution", "list", "--task", "hourly", "--json").json} == {
        "backfill"
    }
    assert "Cancelled 4 waiting executions" in contenthub("task", "backfill", "hourly", "--cancel").out
    assert contenthub("task", "backfill", "hourly", "--cancel", "--json").json == {"cancelled": 0, "ending": 0}
