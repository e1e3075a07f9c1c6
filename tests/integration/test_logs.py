"""Log records name the attempt that wrote them; JSON lines are for machines, the console stays the seed's."""

from __future__ import annotations

import json
import logging
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from loguru import logger

from app.observability.logs import configure_logs
from app.scheduler.context import current_execution
from app.services.scheduler_service import TaskExecutionResult
from tests.integration.command_line import ContentHub, until
from tests.integration.otlp import receiving
from tests.integration.test_cli_server import answers
from tests.support import Recorder, free_port, running


@pytest.fixture(autouse=True)
def _no_patcher_left() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers[:] = before
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


async def test_the_line_about_a_step_that_is_tried_again_quotes_no_secret(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def log_in(token: str) -> None:
        raise PermissionError(f"401 for {token}")

    async def work(_id: int, params: dict[str, Any], _db: Any) -> None:
        await current_execution().step("login", log_in, params["api_token"], retries=1)

    configure_logs("DEBUG", "console")
    async with running(sqlite_url, Recorder("work", work)) as (service, _):
        execution = await service.enqueue("work", {"api_token": "SUPERSECRET99"})
        assert not (await service.wait(execution.id, 30)).success
    told = capsys.readouterr().err
    assert "秒后重试: PermissionError: 401 for ******" in told
    assert "SUPERSECRET99" not in told


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


def test_every_line_of_a_server_is_json_and_requests_name_their_trace(tmp_path: Path) -> None:
    contenthub, port = ContentHub(tmp_path, {"LOG_FORMAT": "json"}), free_port()
    with receiving() as receiver:
        command = ("serve", "--port", str(port))
        with contenthub.started(*command, **receiver.settings) as server:
            until(lambda: answers(f"http://127.0.0.1:{port}/health/live"))
            httpx.get(
                f"http://127.0.0.1:{port}/api/v1/scheduler/tasks",
                headers={"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01"},
            )
            server.send_signal(signal.SIGTERM)
            out, err = server.communicate(timeout=60)
    assert out == ""
    notes = [line for line in err.splitlines() if not line.startswith("{")]
    assert all(line.startswith(("Dashboard: ", "API: ", "No API token")) for line in notes), notes
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    (asked,) = [line for line in lines if "/api/v1/scheduler/tasks" in line["message"]]
    assert (asked["logger"], asked["level"], asked["trace_id"]) == ("uvicorn.access", "INFO", "a1" * 16)
    assert "调度器已关闭" in [line["message"] for line in lines]


def test_what_a_library_logs_by_the_standard_library_is_a_json_line_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("INFO", "json")
    configure_logs("INFO", "json")  # twice is once
    try:
        int("坏")
    except ValueError:
        logging.getLogger("a.library").exception("100 %s {}", "%")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["logger"], record["level"], record["message"]) == ("a.library", "ERROR", "100 % {}")
    assert "ValueError: invalid literal for int()" in record["exception"]


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_a_record_that_cannot_be_formatted_does_not_fail_the_attempt_that_logs_it(
    sqlite_url: str, capsys: pytest.CaptureFixture[str], log_format: Literal["console", "json"]
) -> None:
    def work(*_: Any) -> None:
        logging.getLogger("a.library").warning("%d items", "many")
        logging.getLogger("a.library").warning("%s", Unspeakable())
        logging.getLogger("a.library").warning(Unspeakable())

    logging.getLogger().handlers.clear()  # pytest's own raise on purpose
    configure_logs("INFO", log_format)
    async with running(sqlite_url, Recorder("work", work)) as (service, _):
        result = await service.wait((await service.enqueue("work")).id, 10)
    assert (result.success, result.error) == (True, None)
    if log_format == "json":
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        told = [line["message"] for line in lines if line["logger"] == "a.library"]
        assert told[0].startswith("%d items (not formatted with ('many',): TypeError: ")
        assert told[1].startswith("%s (not formatted with <tuple>: RuntimeError: ")
        assert told[2].startswith("<Unspeakable> (not formatted with (): RuntimeError: ")


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def _own_tail() -> dict[str, Any]:
    snake: dict[str, Any] = {"n": 1}
    snake["tail"] = snake
    return snake


@pytest.mark.parametrize(
    ("bound", "written"),
    [
        (math.nan, "NaN"),
        ({"deep": [math.inf]}, {"deep": ["Infinity"]}),
        ({(1, 2): "x"}, {"1,2": "x"}),
        (_own_tail(), "{'n': 1, 'tail': {...}}"),
        (Unspeakable(), "<Unspeakable>"),
        ({"inside": [Unspeakable()]}, {"inside": ["<Unspeakable>"]}),
        ("\ud800", "\ufffd"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_was_bound_a_json_line_is_json_and_no_record_is_lost(
    capsys: pytest.CaptureFixture[str], bound: Any, written: Any
) -> None:
    configure_logs("INFO", "json")
    logger.bind(what=bound, beside=7).info("x")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (record["message"], record["what"], record["beside"]) == ("x", written, 7)


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_what_an_executor_logs_by_the_standard_library_is_kept_with_the_execution(
    sqlite_url: str, log_format: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    library = logging.getLogger("a.library")

    def speak(*_: Any) -> TaskExecutionResult:
        library.debug("too quiet")
        library.info("got %d", 3)
        logging.getLogger("another").warning("as %s", "hunter2")
        return TaskExecutionResult.success_result("好")

    configure_logs("INFO", log_format)
    logging.getLogger().handlers = [
        handler for handler in logging.getLogger().handlers if type(handler).__name__ == "_ToLoguru"
    ]
    library.setLevel("DEBUG")
    try:
        async with running(sqlite_url, Recorder("talker", speak)) as (service, runtime):
            execution = await service.enqueue("talker", {"password": "hunter2"})
            await service.wait(execution.id, 10)
            logging.getLogger("outside").warning("not of an attempt")
            kept = runtime.history.logs(execution.id)
    finally:
        library.setLevel(logging.NOTSET)
    lines = [(line.level, line.message) for line in kept]
    assert lines == [("INFO", "got 3"), ("WARNING", "as ******")]
    printed = capsys.readouterr().err
    assert printed.count("not of an attempt") == 1
    assert not logging.getLogger().handlers or log_format == "json"
