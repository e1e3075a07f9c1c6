"""`/site`, what has been published."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize("name", ["index.html", "content-1.html", "feed.xml"])
def test_no_code_runs_in_what_is_published(client: TestClient, tmp_path: Path, name: str) -> None:
    (tmp_path / "site" / name).write_text("<script>alert(1)</script>")
    answer = client.get(f"/site/{name}")
    assert (answer.status_code, answer.text) == (200, "<script>alert(1)</script>")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/site/missing.html").status_code == 404
