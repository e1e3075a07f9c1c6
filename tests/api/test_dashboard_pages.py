"""The dashboard's page and assets as a browser gets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.cli.serve import say_if_not_built
from app.dashboard import pages


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build of our own making: these tests are about how it is served."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "docs.html").write_text("<main id=docs></main>")
    (tmp_path / "index.html").write_text('<meta name="csp-nonce" content="__CSP_NONCE__"><div id="root"></div>')
    monkeypatch.setattr(pages, "STATIC", tmp_path)
    return tmp_path


def directives(policy: str) -> dict[str, set[str]]:
    return {name: set(values) for name, *values in (part.split() for part in policy.split("; "))}


@pytest.mark.parametrize("path", ["", "tasks", "tasks/7/edit", "executions?state=failed", "nowhere/../.."])
def test_every_address_is_the_page_and_no_foreign_code_runs_in_it(
    client: TestClient, built: Path, path: str
) -> None:
    answer = client.get(f"/scheduler/{path}")
    assert answer.status_code == 200
    allowed = directives(answer.headers["content-security-policy"])
    assert allowed["default-src"] == {"'none'"}
    assert allowed["script-src"] == {"'self'"}
    assert allowed["frame-ancestors"] == {"'none'"}
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r"https?:", answer.headers["content-security-policy"])
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert built


def test_the_nonce_is_new_each_time_and_the_same_in_page_and_policy(client: TestClient, built: Path) -> None:
    nonces = set()
    for _ in range(3):
        answer = client.get("/scheduler/")
        (nonce,) = re.findall(r'content="([\w-]{16,})"', answer.text)
        assert f"'nonce-{nonce}'" in answer.headers["content-security-policy"]
        nonces.add(nonce)
    assert len(nonces) == 3
    assert built


def test_who_asks_for_the_headers_alone_gets_them(client: TestClient, built: Path) -> None:
    for path in ("/scheduler/", "/scheduler/tasks", "/docs"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert "content-security-policy" in answer.headers
    assert client.head("/", follow_redirects=False).headers["location"] == "scheduler/"
    assert built


def test_the_way_to_the_dashboard(client: TestClient, built: Path) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "scheduler/"
    assert client.get("/scheduler", follow_redirects=False).headers["location"] == "scheduler/"
    assert built


def test_the_documentation_of_the_api_comes_from_this_server_alone(client: TestClient, built: Path) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert answer.text == (built / "docs.html").read_text()
    assert "http" not in answer.headers["content-security-policy"]
    assert client.get("/redoc").status_code == 404


def test_where_nothing_was_built_page_and_command_say_so_and_the_api_works(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pages, "STATIC", tmp_path / "none")
    say_if_not_built()
    assert pages.HOW_TO_BUILD in " ".join(capsys.readouterr().err.split())
    for path in ("/scheduler/tasks", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "pip install" in answer.text
        assert "仪表盘尚未构建" in answer.text
    assert client.get("/api/v1/scheduler/status").status_code == 200
