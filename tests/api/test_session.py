"""Signing in: a token becomes a cookie that scripts cannot read, and changes need a proof of their page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from itsdangerous import TimestampSigner

from app.api.browser_session import COOKIE
from app.core.config import Settings
from tests.api.conftest import API

TASK = {"name": "a task", "task_type": "work"}


def sign_in(client: TestClient, token: str) -> dict[str, Any]:
    answer = client.post(f"{API}/session", json={"token": token})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_token_becomes_a_cookie_that_no_script_and_no_other_site_can_use(
    client: TestClient, tokens: dict[str, str]
) -> None:
    answer = client.post(f"{API}/session", json={"token": tokens["operator"]})
    assert (answer.json()["name"], answer.json()["role"]) == ("operator", "operator")
    cookie = answer.headers["set-cookie"]
    assert re.search(r"; HttpOnly(;|$)", cookie)
    assert re.search(r"; SameSite=strict(;|$)", cookie, re.IGNORECASE)
    assert re.search(r"; Max-Age=43200(;|$)", cookie)
    assert tokens["operator"] not in cookie
    assert client.get(f"{API}/session").json() == answer.json()


def test_over_https_the_cookie_is_for_https_alone(application: FastAPI, tokens: dict[str, str]) -> None:
    with TestClient(application, base_url="https://scheduler.example") as client:
        answer = client.post(f"{API}/session", json={"token": tokens["viewer"]})
        assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("token", ["wrong", "ch_" + "A" * 43, " ", "\x00", "1.signature"])
def test_what_is_no_token_gets_no_cookie(client: TestClient, tokens: dict[str, str], token: str) -> None:
    answer = client.post(f"{API}/session", json={"token": token})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "set-cookie" not in answer.headers
    assert tokens


@pytest.mark.parametrize("proof", [None, "", "wrong", "ü"])
def test_a_change_needs_the_proof_that_it_comes_from_our_page(
    client: TestClient, tokens: dict[str, str], proof: str | None
) -> None:
    sign_in(client, tokens["operator"])
    headers = {} if proof is None else {"X-CSRF-Token": proof.encode()}
    refused = client.post(f"{API}/tasks", json=TASK, headers=headers)  # type: ignore[arg-type]
    assert refused.status_code == 403
    assert "X-CSRF-Token" in refused.json()["detail"]
    assert client.get(f"{API}/tasks").json()["items"] == []


def test_with_its_proof_a_change_passes_and_bears_the_name(client: TestClient, tokens: dict[str, str]) -> None:
    proof = {"X-CSRF-Token": sign_in(client, tokens["operator"])["csrf_token"]}
    task = client.post(f"{API}/tasks", json=TASK, headers=proof).json()["id"]
    (change,) = client.get(f"{API}/tasks/{task}/changes").json()["items"]
    assert (change["changed_by"], change["action"], change["version"]) == ("operator", "create", 1)


def test_one_sessions_proof_is_worth_nothing_in_another(client: TestClient, tokens: dict[str, str]) -> None:
    proof = sign_in(client, tokens["viewer"])["csrf_token"]
    sign_in(client, tokens["operator"])
    refused = client.post(f"{API}/tasks", json=TASK, headers={"X-CSRF-Token": proof})
    assert refused.status_code == 403


def test_a_bearer_token_needs_no_proof_and_wins_over_a_cookie(client: TestClient, tokens: dict[str, str]) -> None:
    sign_in(client, tokens["viewer"])
    made = client.post(f"{API}/tasks", json=TASK, headers={"Authorization": f"Bearer {tokens['operator']}"})
    assert made.status_code == 201


def test_the_role_of_the_token_is_the_role_of_the_session(client: TestClient, tokens: dict[str, str]) -> None:
    proof = {"X-CSRF-Token": sign_in(client, tokens["viewer"])["csrf_token"]}
    assert client.post(f"{API}/tasks", json=TASK, headers=proof).status_code == 403
    assert client.get(f"{API}/settings").status_code == 403
    assert client.get(f"{API}/tasks").status_code == 200


def _tampered(cookie: str) -> list[str]:
    token_id, moment, signature = cookie.split(".")
    return [
        f"{int(token_id) + 1}.{moment}.{signature}",
        f"{token_id}.{moment}x.{signature}",
        f"{token_id}.{moment}.{signature[:-2]}AA",
        token_id,
        "",
        "٣" + cookie,
        "9" * 30 + cookie,
        f"{token_id}.{moment}.{signature}." + "A" * 5000,
    ]


def test_a_cookie_that_was_tampered_with_is_none(client: TestClient, tokens: dict[str, str]) -> None:
    sign_in(client, tokens["viewer"])
    good = client.cookies[COOKIE]
    for forged in _tampered(good):
        client.cookies.clear()
        answer = client.get(f"{API}/tasks", headers={"Cookie": f"{COOKIE}={forged}".encode()})  # type: ignore[dict-item]
        assert answer.status_code == 401, forged
    assert client.get(f"{API}/tasks", headers={"Cookie": f"{COOKIE}={good}"}).status_code == 200


def test_a_session_ends_with_its_hours(
    client: TestClient, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(client, tokens["viewer"])
    made = TimestampSigner("x").get_timestamp()
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: made + 12 * 3600 - 5)
    assert client.get(f"{API}/tasks").status_code == 200
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: made + 12 * 3600 + 5)
    assert client.get(f"{API}/tasks").status_code == 401


def test_revoking_the_token_ends_its_sessions_at_once(client: TestClient, tokens: dict[str, str]) -> None:
    sign_in(client, tokens["viewer"])
    ended = client.delete(f"{API}/tokens/viewer", headers={"Authorization": f"Bearer {tokens['admin']}"})
    assert ended.status_code == 204
    assert client.get(f"{API}/tasks").status_code == 401


def test_signing_out_forgets_the_cookie(client: TestClient, tokens: dict[str, str]) -> None:
    sign_in(client, tokens["viewer"])
    assert client.delete(f"{API}/session").status_code == 204
    assert COOKIE not in client.cookies
    assert client.get(f"{API}/tasks").status_code == 401


def test_a_session_of_another_deployments_secret_is_none(
    application: FastAPI, client: TestClient, tokens: dict[str, str]
) -> None:
    sign_in(client, tokens["viewer"])
    runtime = application.state.runtime
    runtime.settings = Settings(
        **{**runtime.settings.model_dump(), "session_secret": "another secret, long enough"}
    )
    assert client.get(f"{API}/tasks").status_code == 401


def test_without_tokens_this_machine_needs_no_session(client: TestClient) -> None:
    found = client.get(f"{API}/session").json()
    assert found == {"name": "local", "role": "admin", "csrf_token": None}
