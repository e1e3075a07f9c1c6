"""The API keeps what its OpenAPI document says, whatever it is sent."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings

from tests.api.test_tasks import TASK


@pytest.fixture
def api_schema(application: FastAPI, client: TestClient) -> Any:
    application.state.runtime.tasks.create(application.state.runtime.definition(TASK))
    return schemathesis.openapi.from_asgi("/openapi.json", application)


schema = schemathesis.pytest.from_fixture("api_schema")

# Not checked: that every request the document allows is accepted. The document cannot say which executors are
# registered, nor what their params are.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.specs.openapi.checks.status_code_conformance,
    schemathesis.specs.openapi.checks.content_type_conformance,
    schemathesis.specs.openapi.checks.response_headers_conformance,
    schemathesis.specs.openapi.checks.response_schema_conformance,
    schemathesis.specs.openapi.checks.negative_data_rejection,
    schemathesis.specs.openapi.checks.unsupported_method,
    schemathesis.specs.openapi.checks.ignored_auth,
]


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_schemathesis_finds_nothing(case: Any, tokens: dict[str, str]) -> None:
    case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {tokens['admin']}"})
