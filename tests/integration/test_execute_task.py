"""The primitive: `execute_task()` as the seed has it."""

from __future__ import annotations

import asyncio
import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from loguru import logger
from pydantic import BaseModel, Field, SecretStr, field_validator

from app.api.schemas import ExecutionAnswer
from app.core.errors import InvalidRequest
from app.scheduler.context import current_execution
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, TaskExecutor, TaskStatus
from tests.support import Recorder, ended, fail_with, running


@pytest.fixture
def service() -> SchedulerService:
    return SchedulerService()


@pytest.fixture
def records() -> Any:
    found: list[Any] = []
    sink = logger.add(lambda message: found.append(message.record), level="DEBUG")
    yield found
    logger.remove(sink)


async def run(service: SchedulerService, executor: TaskExecutor, params: dict[str, Any] | None = None) -> Any:
    service.register_executor(executor)
    return await service.execute_task(1, executor.executor_type, params or {}, None)  # type: ignore[arg-type]


def test_task_status_has_exactly_three_members() -> None:
    assert [status.name for status in TaskStatus] == ["RUNNING", "SUCCESS", "FAILED"]
    assert all(isinstance(status, str) for status in TaskStatus)


def test_result_fields_are_in_the_order_of_the_seed() -> None:
    assert list(TaskExecutionResult.__dataclass_fields__) == [
        "success",
        "message",
        "data",
        "error",
        "duration",
        "metadata",
    ]


def test_to_dict_is_plain_json() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    key = uuid.UUID(int=7)
    result = TaskExecutionResult.success_result("ok", data={"at": moment, "sum": Decimal("1.10"), "id": key})
    assert result.to_dict() == {
        "success": True,
        "message": "ok",
        "data": {"at": "2030-01-01T00:00:00Z", "sum": "1.10", "id": str(key)},
        "error": None,
        "duration": None,
        "metadata": {},
    }


async def test_success_fills_the_duration_and_logs_as_the_seed_says(
    service: SchedulerService, records: list[Any]
) -> None:
    result = await run(service, Recorder("content_generation"), {"topic": "x"})
    assert result.success
    assert 0 <= result.duration < 5
    lines = [(record["level"].name, record["message"]) for record in records]
    assert ("INFO", "开始执行任务 1 (类型: content_generation)") in lines
    assert ("DEBUG", "任务参数: {'topic': 'x'}") in lines
    assert ("DEBUG", "执行结果: 完成") in lines
    assert any(
        level == "INFO" and re.fullmatch(r"任务 1 执行成功，耗时 \d+\.\d\d秒", text) for level, text in lines
    )


async def test_failure_logs_its_reason_and_the_stack(service: SchedulerService, records: list[Any]) -> None:
    result = await run(service, Recorder("x", fail_with(ValueError("broken pipe"))))
    assert not result.success
    assert result.error == "ValueError: broken pipe"
    lines = [(record["level"].name, record["message"]) for record in records]
    assert any(
        level == "INFO" and re.fullmatch(r"任务 1 执行失败，耗时 \d+\.\d\d秒", text) for level, text in lines
    )
    assert ("ERROR", "任务 1 失败原因: ValueError: broken pipe") in lines
    (stack,) = [
        text for _, text in lines if text.startswith("任务 1 执行异常: ValueError: broken pipe\nTraceback")
    ]
    assert "raise error" in stack


class Login(BaseModel):
    password: str

    @field_validator("password")
    @classmethod
    def _is_strong(cls, value: str) -> str:
        if value == "123456":
            raise ValueError(f"password {value!r} is too weak")
        return value


def quotes(task_params: dict[str, Any]) -> TaskExecutionResult:
    current_execution().progress(0.5, f"as {task_params['password']}")
    current_execution().log(f"logging in with {task_params['password']}")
    logger.info("my own words: {}", task_params["password"])
    raise ConnectionError(f"{task_params['url']} refused {task_params['password']}")


async def test_what_quotes_a_secret_is_masked_in_every_log_and_in_the_history(sqlite_url: str) -> None:
    """Also where somebody else's sink has loguru's `diagnose`, its default, which prints what variables hold."""
    params = {"password": "hunter22", "url": "http://ada:pa55word@example.org/?api_key=k3yk3y"}
    theirs: list[str] = []
    executor = Recorder("work", lambda _task, given, _db: quotes(given))
    async with running(sqlite_url, executor) as (service, runtime):
        sink = logger.add(lambda line: theirs.append(str(line)), level="DEBUG", diagnose=True, backtrace=True)
        try:
            found = await ended(runtime, (await service.enqueue("work", params, max_attempts=1)).id)
        finally:
            logger.remove(sink)
        attempts, lines = runtime.history.attempts(found.id), runtime.history.logs(found.id)
    told = "".join(line for line in theirs if "my own words" not in line)
    assert "ConnectionError: http://ada:******@example.org/?api_key=****** refused ******" in told
    kept = repr((found._replace(params={}), attempts[0].traceback, [line.message for line in lines]))
    assert "my own words: ******" in kept
    for secret in ("hunter22", "pa55word", "k3yk3y"):
        assert secret not in told
        assert secret not in kept


async def test_a_result_that_echoes_a_secret_is_kept_whole_and_shown_masked(sqlite_url: str) -> None:
    executor = Recorder("work", lambda *_: TaskExecutionResult.success_result("ok", data=["as hunter22", 1]))
    async with running(sqlite_url, executor) as (service, runtime):
        found = await ended(runtime, (await service.enqueue("work", {"password": "hunter22"})).id)
    assert found.result is not None
    assert found.result["data"] == ["as hunter22", 1]
    assert ExecutionAnswer.model_validate(found).model_dump()["result"]["data"] == ["as ******", 1]


async def test_a_secret_type_in_params_brings_the_executor_what_it_holds_and_is_shown_masked(
    sqlite_url: str,
) -> None:
    executor, keyed = Recorder("work"), {"password": SecretStr("hunter22")}
    async with running(sqlite_url, executor) as (service, runtime):
        task = runtime.tasks.create(runtime.definition({"name": "t", "task_type": "work"}))
        found = await ended(runtime, (await service.enqueue("work", keyed)).id)
        await ended(runtime, (await service.enqueue_many([{"task_type": "work", "params": keyed}]))[0].id)
        await ended(runtime, (await service.run_now(task.id, keyed)).id)
        with pytest.raises(InvalidRequest, match=r"params\.colour"):
            await service.enqueue("work", {"colour": SecretStr("hunter22")})
    assert executor.calls == [{"password": "hunter22"}] * 3
    assert ExecutionAnswer.model_validate(found).model_dump()["params"] == {"password": "******"}


async def test_a_refusal_does_not_quote_a_secret_either(service: SchedulerService, records: list[Any]) -> None:
    result = await run(service, Recorder("login", params_model=Login), {"password": "123456"})
    assert result.error == "InvalidParameters"
    assert "'******' is too weak" in result.metadata["errors"][0]["message"]
    assert "123456" not in repr([record["message"] for record in records])


async def test_an_exception_without_text_still_names_itself(service: SchedulerService) -> None:
    assert (await run(service, Recorder("x", fail_with(KeyError())))).error == "KeyError"


async def test_a_failure_result_without_error_gets_one(service: SchedulerService) -> None:
    executor = Recorder("x", lambda *_: TaskExecutionResult.failure_result("没有素材"))
    assert (await run(service, executor)).error == "没有素材"


async def test_unknown_type(service: SchedulerService) -> None:
    result = await service.execute_task(1, "unknown_type", {}, None)  # type: ignore[arg-type]
    assert not result.success
    assert result.error == "ExecutorNotFound: unknown_type"


async def test_refused_params(service: SchedulerService) -> None:
    executor = Recorder("x")
    executor.validate_params = lambda _params: False  # type: ignore[method-assign]
    result = await run(service, executor)
    assert result.error == "InvalidParameters"
    assert executor.calls == []


async def test_validate_params_that_raises_is_a_refusal_that_says_why(service: SchedulerService) -> None:
    executor = Recorder("x")
    executor.validate_params = fail_with(RuntimeError("no config"))  # type: ignore[method-assign]
    result = await run(service, executor)
    assert result.error == "InvalidParameters"
    assert result.metadata["errors"][0]["message"] == "RuntimeError: no config"


class _Params(BaseModel):
    account_id: int
    topic: str = Field(min_length=1)
    api_key: SecretStr = SecretStr("")


async def test_a_params_model_refuses_field_by_field(service: SchedulerService) -> None:
    result = await run(service, Recorder("x", params_model=_Params), {"account_id": "no", "topic": ""})
    assert result.error == "InvalidParameters"
    assert [item["field"] for item in result.metadata["errors"]] == ["params.account_id", "params.topic"]


def test_a_params_model_publishes_its_schema_and_other_executors_keep_the_seeds_three_keys(
    service: SchedulerService,
) -> None:
    service.register_executor(Recorder("with", params_model=_Params))
    service.register_executor(Recorder("without"))
    infos = service.get_registered_executors()
    assert infos["with"]["params_schema"]["required"] == ["account_id", "topic"]
    assert infos["without"] == {"type": "without", "class": "Recorder", "module": "tests.support"}


@pytest.mark.parametrize("returned", ["text", 7, {"success": True}, object()])
async def test_a_result_of_the_wrong_type_is_a_failure_that_names_it(
    service: SchedulerService, returned: object
) -> None:
    result = await run(service, Recorder("x", lambda *_: returned))
    assert not result.success
    assert type(returned).__name__ in result.error


async def test_a_result_that_is_no_json_is_a_failure(service: SchedulerService) -> None:
    executor = Recorder("x", lambda *_: TaskExecutionResult.success_result("ok", data={"socket": object()}))
    result = await run(service, executor)
    assert not result.success
    assert "no JSON" in result.error
    assert "object" in result.error


async def test_sys_exit_in_an_executor_is_its_fault_and_no_end_of_the_process(service: SchedulerService) -> None:
    assert (await run(service, Recorder("x", fail_with(SystemExit(3))))).error == "SystemExit: 3"


class Halt(BaseException):
    """What some libraries raise past `except Exception`."""


@pytest.mark.parametrize("error", [Halt("stop"), GeneratorExit("gone")])
async def test_what_flies_past_except_exception_is_a_failure_too(
    service: SchedulerService, error: BaseException
) -> None:
    assert (await run(service, Recorder("x", fail_with(error)))).error == f"{type(error).__name__}: {error}"


async def test_ctrl_c_passes_through(service: SchedulerService) -> None:
    call = run(service, Recorder("x", fail_with(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        call.send(None)


async def test_cancellation_passes_through(service: SchedulerService) -> None:
    task = asyncio.create_task(run(service, Recorder("x", lambda *_: asyncio.sleep(30))))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_secrets_never_reach_the_log(service: SchedulerService, records: list[Any]) -> None:
    secret = "hunter2-very-secret"
    params = {
        "password": secret,
        "nested": [{"api_key": secret}],
        "Authorization": secret,
        "key": SecretStr(secret),
    }
    await run(service, Recorder("x", fail_with(ValueError("x"))), params)
    assert secret not in "\n".join(record["message"] for record in records)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (object(), "executor"),
        (Recorder, "executor"),
        (Recorder(""), "executor_type"),
        (Recorder("  "), "executor_type"),
        (Recorder("x" * 101), "executor_type"),
        (Recorder(7), "executor_type"),  # type: ignore[arg-type]
        (Recorder("x", lane="fast"), "lane"),
        (Recorder("x", execute=lambda *_: None), "execute"),
    ],
)
def test_registering_something_else_names_what_is_wrong(service: SchedulerService, wrong: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        service.register_executor(wrong)
    assert refusal.value.errors[0].field == field


def test_registering_a_type_again_replaces_it_with_a_warning(
    service: SchedulerService, records: list[Any]
) -> None:
    first, second = Recorder("x"), Recorder("x")
    service.register_executor(first)
    service.register_executor(second)
    assert service.get_executor("x") is second
    assert [record["message"] for record in records if record["level"].name == "WARNING"] == [
        "执行器 x 已注册，将被 Recorder 替换"
    ]


def test_start_outside_a_loop_says_what_to_do(service: SchedulerService) -> None:
    from app.core.errors import SchedulerUnavailable

    with pytest.raises(SchedulerUnavailable, match="lifespan"):
        service.start()
