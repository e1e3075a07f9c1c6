"""Wrong definitions: each is refused with 422, the wrong field is named, and nothing is stored."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.config import Settings
from app.factory import create_app
from tests.api.conftest import API, Credentials
from tests.api.test_tasks import fields
from tests.support import Recorder

Definition = dict[str, Any]
SIZES = (3, 5, 8)


def good(size: int) -> Definition:
    """A chain of steps, each reading the one before; the last is a fan-out."""
    steps: list[Definition] = [{"id": "s0", "type": "work", "params": {"n": "{{ input.n }}"}}]
    for number in range(1, size):
        before = f"s{number - 1}"
        steps.append(
            {
                "id": f"s{number}",
                "type": "work",
                "params": {"deep": [{"n": f"{{{{ steps.{before}.data.n }}}}"}]},
                "depends_on": [before],
                "when": f"steps.{before}.state == 'success'",
                "on_failure": "compensate",
                "compensate": {"type": "work", "params": {"n": f"{{{{ steps.s{number}.data.n }}}}"}},
            }
        )
    steps[-1] |= {"for_each": "input.list", "limit": 2}
    return {"steps": steps, "input": {"n": 1, "list": [1, 2]}}


Fault = tuple[str, Callable[[Definition, int], str]]
"""A name, and what puts the fault at a step and returns the field that must be named."""


def _set(*path: str, value: Any, field: str | None = None) -> Callable[[Definition, int], str]:
    def put(definition: Definition, place: int) -> str:
        target = definition["steps"][place]
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = value
        return f"params.steps.{place}.{field or '.'.join(path)}"

    return put


def _call(kind: str, params: Any) -> dict[str, Any]:
    return {"type": kind, "params": params}


FAULTS: list[Fault] = [
    *[(f"id {bad!r}", _set("id", value=bad)) for bad in ("", "1a", "a-b", "a.b", "x" * 51, 7, None)],
    *[(f"type {bad!r}", _set("type", value=bad)) for bad in ("nobody", "", 3, None, "x" * 101)],
    *[(f"params {bad!r}", _set("params", value=bad)) for bad in ([], "x", 1)],
    *[
        (f"when {bad!r}", _set("when", value=bad))
        for bad in (
            *("", "1 +", "10**9 > 1", "range(9)", "steps", "steps.nobody.state == 'x'", "input.nothing"),
            *("item.x", "foo", "{% if x %}", "''.__class__()", 5, True),
        )
    ],
    *[(f"for_each {bad!r}", _set("for_each", value=bad)) for bad in ("[", "steps.nobody.data", "index", 3, [1])],
    *[
        (f"template {bad!r}", _set("params", "x", value=bad))
        for bad in (
            "{{ steps.nobody.data }}",
            "{{ input.nothing }}",
            "{{ 1 ** 2 }}",
            "{{ open }}",
            "{{ x|attr('y') }}",
        )
    ],
    ("template in the deep", _set("params", "x", value=[{"y": "{{ }}"}], field="params.x.0.y")),
    ("its own result", _set("params", "x", value="{{ steps.SELF.data }}")),
    *[(f"on_failure {bad!r}", _set("on_failure", value=bad)) for bad in ("explode", 1, None)],
    *[(f"limit {bad!r}", _set("limit", value=bad)) for bad in (0, -1, 1001, 1.5, "2", True)],
    *[(f"retries {bad!r}", _set("retries", value=bad)) for bad in (-1, 100, "3", 0.5)],
    *[(f"timeout {bad!r}", _set("timeout_seconds", value=bad)) for bad in (0, -5, 1e9, "10")],
    *[(f"depends_on {bad!r}", _set("depends_on", value=bad)) for bad in ("s0", 5, {"a": 1})],
    ("depends on nobody", _set("depends_on", value=["nobody"], field="depends_on.0")),
    ("depends on one twice", _set("depends_on", value=["s0", "s0"], field="depends_on.1")),
    ("compensate by nobody", _set("compensate", value=_call("nobody", {}), field="compensate.type")),
    ("compensate without type", _set("compensate", value={"params": {}}, field="compensate.type")),
    (
        "compensate reads nobody",
        _set("compensate", value=_call("work", {"x": "{{ steps.q.data }}"}), field="compensate.params.x"),
    ),
    ("what its executor refuses", _set("params", value={"user": "u"}, field="params.pin")),
    ("an unknown field", _set("colour", value="red")),
]


def broken() -> Iterator[Any]:
    for size in SIZES:
        for name, put in FAULTS:
            definition = copy.deepcopy(good(size))
            place = 1 + (size + len(name)) % (size - 1)
            if name == "what its executor refuses":
                definition["steps"][place]["type"] = "vault"
                definition["steps"][place].pop("compensate")
            if name.startswith("limit"):
                definition["steps"][place]["for_each"] = "[1]"
            field = put(definition, place)
            text = definition["steps"][place].get("params")
            if isinstance(text, dict) and text.get("x") == "{{ steps.SELF.data }}":
                text["x"] = f"{{{{ steps.s{place}.data }}}}"
            yield pytest.param(definition, field, id=f"{size}: {name} at {place}")
        for name, definition, field in _of_the_whole(size):
            yield pytest.param(definition, field, id=f"{size}: {name}")


def _of_the_whole(size: int) -> Iterator[tuple[str, Definition, str]]:
    definition = good(size)
    definition["steps"][0]["depends_on"] = [f"s{size - 1}"]
    yield "a ring", definition, "params.steps.0.depends_on"
    definition = good(size)
    definition["steps"][1]["depends_on"] = ["s1"]
    yield "a step that waits for itself", definition, "params.steps.1.depends_on"
    definition = good(size)
    definition["steps"].append({"id": "s0", "type": "work"})
    yield "an id twice", definition, f"params.steps.{size}.id"
    definition = good(size)
    definition["steps"][0]["limit"] = 2
    yield "a limit without for_each", definition, "params.steps.0.limit"
    definition = good(size)
    definition["steps"][1]["depends_on"] = []
    yield "a result it does not wait for", definition, "params.steps.1.params.deep.0.n"
    definition = good(size)
    definition["steps"][0]["params"]["n"] = "{{ item }}"
    yield "an item without for_each", definition, "params.steps.0.params.n"
    yield "no steps", {"steps": []}, "params.steps"
    yield "steps that are no list", {"steps": {}}, "params.steps"
    yield "nothing", {}, "params.steps"
    yield "too many steps", {"steps": [{"id": f"s{n}", "type": "work"} for n in range(101)]}, "params.steps"
    yield "input that is no object", good(size) | {"input": []}, "params.input"
    yield "an unknown field", good(size) | {"colour": "red"}, "params.colour"
    inner = {"steps": [{"id": "x", "type": "nobody"}]}
    definition = good(size)
    definition["steps"][0] = {"id": "s0", "type": "workflow", "params": inner}
    yield "a wrong workflow inside", definition, "params.steps.0.params.steps.0.type"


@pytest.mark.parametrize("field", ["retries", "timeout_seconds"])
@pytest.mark.parametrize(
    "step",
    [
        {"type": "approval", "params": {"title": "?"}},
        {"type": "workflow", "params": {"steps": [{"id": "x", "type": "work"}]}},
    ],
    ids=lambda step: step["type"],
)
def test_what_is_about_attempts_is_refused_where_attempts_only_wait(
    refuses: TestClient, step: Definition, field: str
) -> None:
    body = {"task_type": "workflow", "params": {"steps": [{"id": "a", **step, field: 3}]}}
    for language, said in (
        ("en", "at" if field == "timeout_seconds" else "give it to the steps"),
        ("zh", "步骤上"),
    ):
        answer = refuses.post(f"{API}/executions", json=body, headers={"Accept-Language": language})
        (error,) = answer.json()["errors"]
        assert (error["field"], said in error["message"]) == (f"params.steps.0.{field}", True)


def test_more_than_two_hundred_are_tried() -> None:
    assert len(list(broken())) > 200


@pytest.fixture(scope="module")
def refuses(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[TestClient]:
    """One application for all of them: none leaves anything behind."""
    folder = tmp_path_factory.mktemp("definitions")
    shutil.copy(sqlite_template, folder / "contenthub.db")
    app = create_app(
        Settings(database_url=f"sqlite:///{folder / 'contenthub.db'}", publish_directory=folder / "site")
    )
    app.state.service.register_executor(Recorder("work"))
    app.state.service.register_executor(Recorder("vault", params_model=Credentials))
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
        yield client


@pytest.mark.parametrize(("definition", "field"), list(broken()))
def test_a_wrong_definition_is_answered_with_its_field(
    refuses: TestClient, definition: Definition, field: str
) -> None:
    body = {"task_type": "workflow", "params": definition}
    answer = refuses.post(f"{API}/executions", json=body)
    assert answer.status_code == 422, answer.text
    named = [error["field"] for error in answer.json()["errors"]]
    assert field in named, named
    assert all(error["message"] for error in answer.json()["errors"])
    task = refuses.post(f"{API}/tasks", json={"name": "flow", **body})
    assert task.status_code == 422
    assert refuses.get(f"{API}/executions").json()["items"] == []
    assert refuses.get(f"{API}/tasks").json()["items"] == []


@pytest.mark.parametrize("size", SIZES)
def test_what_they_were_made_of_is_accepted(client: TestClient, application: FastAPI, size: int) -> None:
    answer = client.post(f"{API}/executions", json={"task_type": "workflow", "params": good(size)})
    assert answer.status_code == 202, answer.text


def test_a_definition_that_would_take_seconds_to_read_is_refused(client: TestClient) -> None:
    params = {"many": ["{{ input.n + 1 }}" * 10] * 101}
    body = {"steps": [{"id": "s", "type": "work", "params": params}], "input": {"n": 1}}
    answer = client.post(f"{API}/executions", json={"task_type": "workflow", "params": body})
    assert answer.status_code == 422
    assert "1010 expressions" in answer.json()["detail"]


def test_a_list_is_not_called_too_short_for_what_is_wrong_in_it(client: TestClient) -> None:
    step = {"id": "a", "type": "work", "for_each": "input.list", "limit": 0}
    wrong = client.post(f"{API}/executions", json={"task_type": "workflow", "params": {"steps": [step]}})
    assert fields(wrong) == {"params.steps.0.limit"}
    empty = client.post(f"{API}/executions", json={"task_type": "workflow", "params": {"steps": []}})
    assert fields(empty) == {"params.steps"}
