"""The alert rules and the dashboard, judged by a real Prometheus (Debian's package `prometheus`)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import app.observability
from app.observability.telemetry import observe
from tests.support import Recorder, running

SHIPPED = Path(app.observability.__file__).parent
CASES = Path(__file__).with_name("alerts_test.yml")


def promtool(*arguments: str, directory: Path, given: bytes | None = None) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=directory, input=given, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    if shutil.which("promtool") is None:
        pytest.skip("Debian's package `prometheus` is not installed")
    shutil.copy(SHIPPED / "alerts.yml", tmp_path)
    shutil.copy(CASES, tmp_path)
    return tmp_path


def test_the_alert_rules_are_valid_fire_and_keep_quiet(rules: Path) -> None:
    promtool("check", "rules", "alerts.yml", directory=rules)
    promtool("test", "rules", "alerts_test.yml", directory=rules)


async def test_promtool_finds_nothing_wrong_with_the_exposition(sqlite_url: str, rules: Path) -> None:
    async with running(sqlite_url, Recorder("work")) as (service, runtime):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        await service.wait((await service.enqueue("work")).id, 10)
        promtool("check", "metrics", directory=rules, given=metrics.exposition())


async def test_every_metric_of_dashboard_and_rules_exists(sqlite_url: str) -> None:
    dashboard = json.loads((SHIPPED / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = set(re.findall(r"contenthub_\w+", " ".join([*asked, (SHIPPED / "alerts.yml").read_text()])))
    async with running(sqlite_url, Recorder("work")) as (_, runtime):
        metrics = observe(runtime).prometheus
        assert metrics is not None
        text = metrics.exposition().decode()
    known = set()
    for family in text_string_to_metric_families(text):
        known |= {
            family.name,
            f"{family.name}_total",
            f"{family.name}_bucket",
            f"{family.name}_sum",
            f"{family.name}_count",
        }
    assert named
    assert named <= known
