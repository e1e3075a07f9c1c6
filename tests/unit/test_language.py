"""Sentences in two languages: which one a reader asks for, and that none is missing where pages show them."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import core_schema

import app
from app.core.errors import Conflict, InvalidRequest, NotFound, sentence_of
from app.core.language import Language, Said, in_each, in_language, joined, preferred
from app.core.validation import _IN_CHINESE, field_errors

_APP = Path(app.__file__).parent
_FOR_AUTHORS = {
    "app/api/application.py",
    "app/core/config.py",
    "app/db",
    "app/factory.py",
    "app/scheduler/bulk_requests.py",
    "app/scheduler/children.py",
    "app/scheduler/commands.py",
    "app/scheduler/context.py",
    "app/scheduler/durable.py",
    "app/scheduler/engines",
    "app/scheduler/runtime.py",
    "app/scheduler/task_files.py",
    "app/scheduler/triggers.py",
    "app/services/scheduler_service.py",
    "app/workflows/builders.py",
    "app/workflows/planner.py",
    "app/workflows/sandbox.py",
    "app/cli",
    "app/client",
    "app/dashboard",
    "app/mcp",
    "app/models",
    "app/observability",
    "app/testing",
}
"""What only code, the environment, files and the command line can get wrong: told in English. So is what an
expression fails with while it runs, which is stored."""
_REFUSALS = {
    "Conflict": 0,
    "Conflict.of": 1,
    "FieldError": 1,
    "Forbidden": 0,
    "InvalidExpression": 0,
    "InvalidRequest.of": 1,
    "NotPermitted": 0,
    "TooLarge": 0,
    "Unauthorized": 0,
    "ValueError": 0,
}


def _refusals() -> Iterator[tuple[str, ast.expr]]:
    for path in sorted(_APP.rglob("*.py")):
        name = path.relative_to(_APP.parent).as_posix()
        if any(name == skipped or name.startswith(f"{skipped}/") for skipped in _FOR_AUTHORS):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in _REFUSALS:
                position = _REFUSALS[ast.unparse(node.func)]
                if len(node.args) > position:
                    yield f"{name}:{node.lineno}", node.args[position]


def test_what_a_page_can_show_as_refused_is_known_in_chinese() -> None:
    found = list(_refusals())
    assert len(found) > 100
    plain = [
        f"{where}: {ast.unparse(text)}" for where, text in found if isinstance(text, ast.Constant | ast.JoinedStr)
    ]
    assert plain == []


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("ZH-hant-TW", "zh"),
        ("en-GB, zh;q=0.5", "en"),
        ("fr, zh;q=0.8, en;q=0.5", "zh"),
        ("fr, *", "en"),
        (";;,,", "en"),
    ],
)
def test_the_language_that_a_browser_names_first(header: str, language: Language) -> None:
    assert preferred(header) == language


def test_a_sentence_is_its_english_where_nobody_asks() -> None:
    said = Said("name it", "请命名")
    assert f"{said}!" == "name it!"
    assert in_language(said, "zh") == "请命名"
    assert in_language("plain", "zh") == "plain"
    assert in_each(said, str.upper).in_("zh") == "请命名"
    assert in_each(said, str.upper) == "NAME IT"
    for copied in (deepcopy(said), pickle.loads(pickle.dumps(said))):
        assert (copied.en, copied.zh) == ("name it", "请命名")
    assert joined([said, "x"], Said("; ", "；")).in_("zh") == "请命名；x"


def test_an_error_can_be_said_in_either_language() -> None:
    missing = NotFound("task", 7)
    assert str(missing) == "task 7 does not exist"
    assert missing.said("zh") == "任务 7 不存在"
    wrong = InvalidRequest.of("name", Said("name it", "请命名"))
    assert str(wrong) == "name: name it"
    assert wrong.said("zh") == "name：请命名"
    assert Conflict("only English").said("zh") == "only English"
    assert sentence_of(ValueError(3)) == "3"


class _Closed(BaseModel, extra="forbid"):
    inner: int = 0


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        (int, "x", "须为整数"),
        (int, 1.5, "须为整数，不含小数部分"),
        (float, [], "须为数字，例如 2.5；不接受文本、true 和 false"),
        (bool, "maybe", "须为 true 或 false"),
        (str, 1, "须为文本"),
        (Annotated[str, Field(min_length=2)], "x", "至少 2 个字符"),
        (Annotated[str, Field(max_length=2)], "xyz", "最多 2 个字符"),
        (Annotated[str, Field(pattern="^a$")], "b", "须符合格式 ^a$"),
        (Annotated[int, Field(gt=1)], 1, "须大于 1"),
        (Annotated[int, Field(ge=1)], 0, "须不小于 1"),
        (Annotated[int, Field(lt=1)], 1, "须小于 1"),
        (Annotated[int, Field(le=1)], 2, "须不大于 1"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "最多 1 项，现有 2 项"),
        (Annotated[list[int], Field(min_length=1)], [], "至少 1 项，现有 0 项"),
        (Literal["a", "b", "c"], "d", "须为 'a'、'b' 或 'c'"),
        (dict[str, int], 1, "须为对象"),
        (tuple[int, ...], 1, "须为列表"),
        (AwareDatetime, "2026-01-31T09:00:00", "请注明时区"),
        (date, "yesterday", "须为日期，例如 2026-01-31"),
        (UUID, "x", "须为 UUID"),
        (_Closed, {"outer": 1}, "没有这个字段；请去掉"),
    ],
)
def test_what_pydantic_finds_is_told_in_chinese(kind: Any, wrong: object, told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(wrong)
    (found,) = field_errors(refused.value)
    assert in_language(found.message, "zh") == told
    assert not any("\u4e00" <= letter <= "\u9fff" for letter in found.message)


def test_every_kind_that_is_told_is_one_of_pydantic() -> None:
    assert set(_IN_CHINESE) <= set(get_args(core_schema.ErrorType))
