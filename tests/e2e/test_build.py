"""From sources to what is served: the build that runs while the package is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from app.core.config import Settings
from app.dashboard.build_hook import digest_of, npm
from app.dashboard.pages import STATIC
from app.factory import create_app

ROOT = Path(__file__).parents[2]
UI = ROOT / "app/dashboard/ui"


def make_wheel(project: Path, folder: Path, **environment: str) -> tuple[list[str], str]:
    """Build the project's wheel; returns the names in it, and what the build said."""
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    ran = subprocess.run(
        [*command, str(project)], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist(), ran.stdout + ran.stderr


def test_what_is_served_was_built_from_these_sources() -> None:
    assert (STATIC / ".built-from").read_text() == digest_of(UI), "run `pip install -e .` again"


def test_a_wheel_carries_the_dashboard_and_the_migrations_and_no_sources(tmp_path: Path) -> None:
    names, _ = make_wheel(ROOT, tmp_path)
    assert "app/dashboard/static/index.html" in names
    assert any(name.startswith("app/dashboard/static/assets/") and name.endswith(".js.br") for name in names)
    assert any(name.startswith("app/_alembic/versions/0001") for name in names)
    assert [name for name in names if "node_modules" in name or name.startswith("app/dashboard/ui")] == []


def test_where_npm_cannot_be_reached_the_installation_goes_on_and_says_so(tmp_path: Path) -> None:
    project = tmp_path / "project"
    leave_out = shutil.ignore_patterns("node_modules", "static", "__pycache__")
    for name in ("app", "alembic"):
        shutil.copytree(ROOT / name, project / name, ignore=leave_out)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, project / name)
    nowhere = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_cache": str(tmp_path / "cache")}
    names, said = make_wheel(project, tmp_path / "wheels", **nowhere)
    assert "The dashboard was not built" in said
    assert "app/dashboard/pages.py" in names
    assert [name for name in names if "static" in name] == []


def test_the_types_of_the_client_are_those_of_the_api(tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(create_app(Settings(database_url=f"sqlite:///{tmp_path}/x.db")).openapi()))
    made = tmp_path / "schema.d.ts"
    npm(UI, "exec", "--", "openapi-typescript", str(document), "-o", str(made), check=True, capture_output=True)
    if made.read_text() != (UI / "src/api/schema.d.ts").read_text():
        pytest.fail("src/api/schema.d.ts is not what the API says: make it anew with openapi-typescript")


def test_the_lock_file_names_no_registry() -> None:
    locked = json.loads((UI / "package-lock.json").read_text())["packages"]
    assert len(locked) > 100
    assert [name for name, package in locked.items() if "resolved" in package] == []
    assert all("integrity" in package for name, package in locked.items() if name and not package.get("link"))
