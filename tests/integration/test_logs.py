"""Log records name the attempt that wrote them; JSON lines are for machines, the console stays the seed's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from app.observability.logs import configure_logs
from app.services.scheduler_service import TaskExecutionResult
from tests.support import Recorder, running


@pytest.fixture(autouse=True)
def _no_patcher_left() -> Iterator[None]:
    yield
    logger.configure(patcher=lambda _: None)


def _speak(*_: Any) -> TaskExecutionResult:
    logger.info("来自执行器")
    return TaskExecutionResult.success_result("好")


async def test_a_json_line_names_execution_attempt_and_task(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("INFO", "json")
    async with running(sqlite_url, Recorder("talker", _speak)) as (service, _):
        execution_id = (await service.enqueue("talker", {})).id
        await service.wait(execution_id, 10)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (spoken,) = [line for line in lines if line["message"] == "来自执行器"]
    assert (spoken["execution_id"], spoken["attempt"], spoken["task_type"]) == (execution_id, 1, "talker")
    assert spoken["task_id"] is None
    assert spoken["level"] == "INFO"


def test_a_json_line_carries_the_traceback_and_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO", "json")
    try:
        int("坏")
    except ValueError:
        logger.exception("第一行\n第二行")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["message"] == "第一行\n第二行"
    assert record["exception"].startswith("Traceback")
    assert record["exception"].endswith("invalid literal for int() with base 10: '坏'")


def test_what_was_bound_does_not_hide_the_fields_of_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO", "json")
    logger.bind(level="mine", account=7).warning("x")
    record = json.loads(capsys.readouterr().err)
    assert (record["level"], record["account"]) == ("WARNING", 7)


def test_the_console_format_is_the_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO", "console")
    logger.info("你好")
    assert capsys.readouterr().err[19:] == " | INFO     | 你好\n"
