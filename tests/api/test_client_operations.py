"""The client fits the API: an operation that it lacks, or has in another form, is noticed here."""

from __future__ import annotations

import copy
from typing import Any, get_type_hints

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from app.client.generate import LEFT_OUT, TARGET, operations_source
from app.client.operations import AsyncOperations, Operations


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations of a document by their id, the left-out ones not."""
    found = [operation for of_path in document["paths"].values() for operation in of_path.values()]
    return {one["operationId"]: one for one in found if one["operationId"] not in LEFT_OUT}


def test_the_client_has_the_operations_that_the_api_has(application: FastAPI) -> None:
    assert operations_source(application.openapi()) == TARGET.read_text("utf-8"), (
        "the API has changed: run `python -m app.client.generate` and commit app/client/operations.py"
    )


def test_whatever_is_left_out_exists(application: FastAPI) -> None:
    document = application.openapi()
    everything = {one["operationId"] for of_path in document["paths"].values() for one in of_path.values()}
    assert everything >= LEFT_OUT.keys()


@pytest.mark.parametrize("kind", [Operations, AsyncOperations])
def test_the_answers_of_the_client_have_the_fields_of_the_document(kind: type, application: FastAPI) -> None:
    """The client's answers are models found by their name: they must be the ones that the API means."""
    document = application.openapi()
    for name, operation in operations(document).items():
        (answer,) = (reply for status, reply in operation["responses"].items() if status.startswith("2"))
        returns = get_type_hints(getattr(kind, name))["return"]
        if "content" not in answer:
            assert returns is type(None), name
            continue
        ours = TypeAdapter(returns).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        models = ours.pop("$defs", {})
        documented = answer["content"]["application/json"]["schema"]
        documented = document["components"]["schemas"].get(
            documented.get("$ref", "").rpartition("/")[2], documented
        )
        assert fields_of(ours) == fields_of(documented), name
        for model, schema in models.items():
            if model in document["components"]["schemas"]:  # of two classes of one name, both have longer ones
                assert fields_of(schema) == fields_of(document["components"]["schemas"][model]), (name, model)


def fields_of(schema: dict[str, Any]) -> Any:
    """The names of an object's fields, and which of them are always there; of a list, those of its items."""
    if "items" in schema:
        return [fields_of(schema["items"])]
    return set(schema.get("properties", ())), set(schema.get("required", ())), schema.get("$ref")


def test_a_new_operation_changes_the_source(application: FastAPI) -> None:
    document = copy.deepcopy(application.openapi())
    document["paths"]["/api/v1/scheduler/tasks/{task_id}/backfill"] = {
        "post": {
            "operationId": "backfill_task",
            "summary": "Backfill",
            "parameters": [
                {"name": "task_id", "in": "path", "required": True, "schema": {"type": "integer"}},
                {"name": "pace", "in": "query", "schema": {"type": "number", "default": 1.5}},
            ],
            "requestBody": {"content": {"application/json": {"schema": {"type": "array", "items": {}}}}},
            "responses": {"202": {"content": {"application/json": {"schema": {"type": "integer"}}}}},
        }
    }
    source = operations_source(document)
    assert "    def backfill_task(self, task_id: int, body: list[Any], *, pace: float = 1.5) -> int:" in source
    assert "    async def backfill_task(" in source
    assert 'f"/api/v1/scheduler/tasks/{path_part(task_id)}/backfill"' in source


def test_an_operation_that_no_method_can_be_is_named(application: FastAPI) -> None:
    document = copy.deepcopy(application.openapi())
    patch = document["paths"]["/api/v1/scheduler/tasks/{task_id}"]["patch"]
    patch["parameters"].append({"name": "name", "in": "query", "schema": {"type": "string"}})
    with pytest.raises(ValueError, match="update_task: two of its parameters"):
        operations_source(document)
    del patch["parameters"][-1]
    patch["responses"] = {"404": {}}
    with pytest.raises(ValueError, match="update_task: the document names no successful answer"):
        operations_source(document)
    patch["responses"] = {
        "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/app__a__Kind"}}}}
    }
    with pytest.raises(ValueError, match="two classes are named Kind; rename one of them"):
        operations_source(document)
