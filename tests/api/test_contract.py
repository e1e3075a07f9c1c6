"""The API keeps what its OpenAPI document says, whatever it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from app.core.config import Settings
from app.core.language import in_language
from app.core.validation import message_of
from app.factory import create_service
from app.scheduler.runtime import runtime_of
from tests.api.conftest import API
from tests.api.test_tasks import TASK, fields

# Not checked: that every request the document allows is accepted. The document cannot say which executors are
# registered, nor what their params are. Nor that every other request is refused: unknown query parameters are
# ignored, and the token that each request here carries mends a missing one. Wrong bodies have tests of their own.
# A stream of events never ends by itself within a test's time: it has tests of its own, against a real server.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.unsupported_method,
    openapi_checks.ignored_auth,
]


def _patterns(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if isinstance(document.get("pattern"), str):
            yield document["pattern"]
        yield from (found for value in document.values() for found in _patterns(value))
    elif isinstance(document, list):
        yield from (found for value in document for found in _patterns(value))


def test_what_breaks_a_pattern_is_told_in_a_sentence(application: FastAPI, sqlite_url: str) -> None:
    """Of the API and of the executors that come with it."""
    service = create_service(Settings(database_url=sqlite_url))
    infos = service.get_registered_executors()
    runtime_of(service).close()
    patterns = {*_patterns(application.openapi()), *_patterns(infos)}
    assert len(patterns) > 4
    for pattern in patterns:
        told = message_of({"type": "string_pattern_mismatch", "msg": "", "ctx": {"pattern": pattern}})
        assert told.startswith("write "), told
        assert in_language(told, "zh").startswith("请填写"), told


def test_a_name_that_is_taken_is_named_as_the_field(client: TestClient) -> None:
    client.post(f"{API}/tasks", json=TASK)
    again = client.post(f"{API}/tasks", json=TASK)
    assert again.status_code == 409
    assert fields(again) == {"name"}


# schemathesis draws some of its wrong data with `random`, which hypothesis warns of.
@pytest.mark.timeout(900)  # every operation, twice
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
def test_schemathesis_finds_nothing(application: FastAPI, client: TestClient, tokens: dict[str, str]) -> None:
    """Every operation, with data that fits the document and data that does not."""
    runtime = application.state.runtime
    runtime.tasks.create(runtime.definition(TASK))
    schema = schemathesis.openapi.from_asgi("/openapi.json", application).exclude(path_regex="/events$")
    headers = {"Authorization": f"Bearer {tokens['admin']}"}
    tried: set[str] = set()

    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def probe(case: Any) -> None:
                tried.add(case.operation.label)
                case.call_and_validate(checks=CHECKS, headers=headers)

            with suppress(Unsatisfiable):  # an operation without parameters cannot be asked wrongly
                probe()
    assert len(tried) >= 20


_CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"schedule": {"type": "cron", "expression": "61 * * * *"}}, "schedule.expression", "“分”字段 '61' 有误"),
        ({"schedule": {"type": "interval", "seconds": "x"}}, "schedule.seconds", "间隔是秒数"),
        ({"timezone": "Mars/Base"}, "timezone", "'Mars/Base' 不是 IANA 时区"),
        ({"name": ""}, "name", "至少 1 个字符"),
        ({"name": "a\nb"}, "name", "请填写一行不含控制字符的文本"),
        ({"task_type": "publishing", "params": {"content_id": "x"}}, "params.content_id", "须为整数"),
        ({"end_at": "2020-01-01T00:00:00Z"}, "schedule", "从现在起永远不会触发"),
        ({"surplus": 1}, "surplus", "没有这个字段；请去掉"),
    ],
)
def test_what_is_refused_is_told_in_the_language_of_the_page(
    client: TestClient, change: dict[str, Any], field: str, told: str
) -> None:
    refused = client.post(f"{API}/tasks", json={**TASK, **change}, headers=_CHINESE)
    assert refused.status_code == 422
    assert refused.headers["Content-Language"] == "zh"
    assert refused.headers["Vary"] == "Accept-Language"
    (found,) = refused.json()["errors"]
    assert found["field"] == field
    assert told in found["message"]
    assert refused.json()["detail"] == f"{field}：{found['message']}"
    english = client.post(f"{API}/tasks", json={**TASK, **change}).json()
    assert english["detail"] == f"{field}: {english['errors'][0]['message']}"


def test_conflicts_and_what_is_missing_are_told_in_the_language_of_the_page(client: TestClient) -> None:
    task = client.post(f"{API}/tasks", json=TASK).json()
    taken = client.post(f"{API}/tasks", json=TASK, headers=_CHINESE)
    assert taken.json()["errors"][0]["message"] == f"名为 {TASK['name']!r} 的任务已存在；请换一个名称"
    stale = client.patch(f"{API}/tasks/{task['id']}", json={"name": "x"}, headers={**_CHINESE, "If-Match": '"7"'})
    assert stale.status_code == 412
    assert "请重新读取" in stale.json()["detail"]
    unknown = client.post(f"{API}/tasks", json={**TASK, "task_type": "missing"}, headers=_CHINESE)
    assert unknown.json()["detail"].startswith("没有为 'missing' 注册执行器；已注册的有：")
    missing = client.get(f"{API}/executions/999", headers=_CHINESE)
    assert missing.json()["detail"] == "执行 999 不存在"
    assert "不存在" not in client.get(f"{API}/executions/999").json()["detail"]
