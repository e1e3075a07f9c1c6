"""The pool and the quality check: what goes out when, each once, whoever is killed or cancelled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.core.config import Settings
from app.core.errors import Conflict
from app.executors.content_pool import AddToPoolExecutor, PublishDueExecutor
from app.executors.publishing import PublishingExecutor
from app.executors.quality_check import QualityCheckExecutor, QualityCheckParams, likeness, of_body, of_title
from app.models.content import Content, Publication, ensure_default_account
from app.models.content_pool import PoolEntry
from app.models.task_execution import ExecutionState
from app.scheduler.runtime import Runtime
from app.services.scheduler_service import TaskExecutionResult
from app.workflows.pool import Pool
from tests.support import Recorder, ended, running

BODY = "A sentence with quite a few words in it, so that the check has something to count and to compare. " * 3


def contents(runtime: Runtime, *bodies: str, **columns: Any) -> list[int]:
    with runtime.sessions() as session:
        ensure_default_account(session)
        made = [Content(account_id=1, title=f"T{n}", body=body, **columns) for n, body in enumerate(bodies)]
        session.add_all(made)
        session.commit()
        return [content.id for content in made]


def pooled(runtime: Runtime, *bodies: str) -> list[int]:
    """Contents that wait in the pool."""
    ids = contents(runtime, *bodies)
    with runtime.sessions() as session:
        session.add_all([PoolEntry(content_id=content_id) for content_id in ids])
        session.commit()
    return ids


def entries(runtime: Runtime) -> dict[int, PoolEntry]:
    with runtime.sessions() as session:
        return {entry.content_id: entry for entry in session.scalars(select(PoolEntry))}


def executors(folder: Path) -> tuple[Any, ...]:
    settings = Settings(publish_directory=folder / "site")
    return AddToPoolExecutor(), PublishDueExecutor(), PublishingExecutor(settings), QualityCheckExecutor()


async def test_what_is_due_goes_out_by_priority_at_the_given_rate(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, *executors(tmp_path)) as (service, runtime):
        low, high, later, middle = contents(runtime, *["b"] * 4, is_held=True)
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        for content_id, params in (
            (low, {"priority": -5}),
            (high, {"priority": 9}),
            (later, {"priority": 99, "not_before": tomorrow}),
            (middle, {}),
        ):
            added = await service.enqueue("add_to_pool", {"content_id": content_id, **params})
            assert (await ended(runtime, added.id)).state is ExecutionState.SUCCESS
        rounds = []
        for _ in range(3):
            run = await service.enqueue("publish_due", {"limit": 2})
            rounds.append((await ended(runtime, run.id)).result["data"]["published"])
        with runtime.sessions() as session:
            published = sorted(session.scalars(select(Publication.content_id)))
        states = {key: entry.state for key, entry in entries(runtime).items()}
    assert rounds == [[high, middle], [low], []]
    assert published == sorted([low, high, middle])
    assert states == {
        low: "published",
        high: "published",
        middle: "published",
        later: "waiting",
    }


async def test_scanners_at_the_same_time_publish_each_entry_once(database_url: str, tmp_path: Path) -> None:
    calls: list[int] = []

    async def publish(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        calls.append(params["content_id"])
        await asyncio.sleep(0.02)
        return TaskExecutionResult.success_result("好")

    async with running(database_url, PublishDueExecutor(), Recorder("publishing", publish)) as (service, runtime):
        ids = pooled(runtime, *["b"] * 12)
        runs = [await service.enqueue("publish_due", {"limit": 5}) for _ in range(4)]
        stored = [await ended(runtime, run.id, seconds=40) for run in runs]
    assert all(run.state is ExecutionState.SUCCESS for run in stored), [run.error for run in stored]
    assert sorted(calls) == ids
    assert all(len(run.result["data"]["published"]) <= 5 for run in stored)


async def test_what_cannot_be_published_says_why_and_gets_another_chance(database_url: str) -> None:
    is_broken = True

    def publish(*_: Any) -> TaskExecutionResult:
        if is_broken:
            return TaskExecutionResult.failure_result("坏", "DiskFull: no space")
        return TaskExecutionResult.success_result("好")

    adds = AddToPoolExecutor(), PublishDueExecutor()
    async with running(database_url, *adds, Recorder("publishing", publish)) as (service, runtime):
        (content_id,) = contents(runtime, "b")
        await ended(runtime, (await service.enqueue("add_to_pool", {"content_id": content_id})).id)
        failed = await ended(runtime, (await service.enqueue("publish_due", {})).id)
        assert (failed.state, failed.error) == (ExecutionState.FAILED, "DiskFull: no space")
        entry = entries(runtime)[content_id]
        assert (entry.state, entry.error) == ("failed", "DiskFull: no space")
        is_broken = False
        await ended(runtime, (await service.enqueue("add_to_pool", {"content_id": content_id})).id)
        await ended(runtime, (await service.enqueue("publish_due", {})).id)
        assert entries(runtime)[content_id].state == "published"
        again = await ended(runtime, (await service.enqueue("add_to_pool", {"content_id": content_id})).id)
    assert again.result["data"]["state"] == "published"


async def test_what_a_cancelled_scanner_had_taken_is_due_again(database_url: str) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    hanging = Recorder("publishing", hang)
    async with running(database_url, PublishDueExecutor(), hanging) as (service, runtime):
        (content_id,) = pooled(runtime, "b")
        run = await service.enqueue("publish_due", {})
        while not hanging.calls:
            await asyncio.sleep(0.02)
        await service.cancel(run.id)
        await ended(runtime, run.id)
        service.register_executor(Recorder("publishing"))
        stored = await ended(runtime, (await service.enqueue("publish_due", {})).id)
    assert stored.result["data"]["published"] == [content_id]


async def test_a_retry_publishes_what_is_still_its_own(database_url: str) -> None:
    """It tries again what failed, says so in the pool, and leaves alone what somebody has withdrawn since."""
    calls: list[int] = []
    is_broken = True

    def publish(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        if is_broken:
            return TaskExecutionResult.failure_result("坏", "Http: 500")
        calls.append(params["content_id"])
        return TaskExecutionResult.success_result("好")

    async with running(database_url, PublishDueExecutor(), Recorder("publishing", publish)) as (service, runtime):
        wanted, unwanted = pooled(runtime, "a", "b")
        run = await ended(runtime, (await service.enqueue("publish_due", {"limit": 5})).id)
        assert run.state is ExecutionState.FAILED
        Pool(runtime.sessions).withdraw(entries(runtime)[unwanted].id)
        await service.retry(run.id)
        still_broken = await ended(runtime, run.id)
        assert (still_broken.error, entries(runtime)[wanted].state) == ("Http: 500", "failed")
        is_broken = False
        await service.retry(run.id)
        mended = await ended(runtime, run.id)
        states = {key: entry.state for key, entry in entries(runtime).items()}
    assert mended.result["data"] == {"published": [wanted], "failed": []}
    assert calls == [wanted]
    assert states == {wanted: "published", unwanted: "withdrawn"}


async def test_what_a_cancelled_scanner_had_taken_can_be_withdrawn(database_url: str) -> None:
    calls: list[int] = []
    are_open = asyncio.Event()

    async def publish(_: int, params: dict[str, Any], __: Any) -> TaskExecutionResult:
        await are_open.wait()
        calls.append(params["content_id"])
        return TaskExecutionResult.success_result("好")

    hanging = Recorder("publishing", publish, lane="loop")
    async with running(database_url, PublishDueExecutor(), hanging) as (service, runtime):
        (content_id,) = pooled(runtime, "b")
        run = await service.enqueue("publish_due", {})
        while not hanging.calls:
            await asyncio.sleep(0.02)
        entry = entries(runtime)[content_id]
        with pytest.raises(Conflict):
            Pool(runtime.sessions).withdraw(entry.id)
        await service.cancel(run.id)
        await ended(runtime, run.id)
        for child in runtime.history.children(run.id):
            await ended(runtime, child.id)
        Pool(runtime.sessions).withdraw(entry.id)
        are_open.set()
        await service.retry(run.id)
        await ended(runtime, run.id)
        assert entries(runtime)[content_id].state == "withdrawn"
    assert calls == []


async def test_what_is_held_goes_out_by_name_only(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, *executors(tmp_path)) as (service, runtime):
        (held,) = contents(runtime, "held", is_held=True)
        (free,) = contents(runtime, "free")
        everything = await ended(runtime, (await service.enqueue("publishing", {})).id)
        assert [item["content_id"] for item in everything.result["data"]["published"]] == [free]
        by_name = await ended(runtime, (await service.enqueue("publishing", {"content_id": held})).id)
    assert [item["content_id"] for item in by_name.result["data"]["published"]] == [held]


# ---------------------------------------------------------------- quality


async def test_a_check_scores_and_says_what_it_found(database_url: str) -> None:
    async with running(database_url, QualityCheckExecutor()) as (service, runtime):
        first, second, third, near = contents(
            runtime, BODY, BODY, "short", BODY + "and [more](https://example.org)"
        )
        results = []
        for content_id in (first, second, third, near):
            run = await service.enqueue("quality_check", {"content_id": content_id, "min_score": 0})
            results.append((await ended(runtime, run.id)).result["data"])
        below = await ended(runtime, (await service.enqueue("quality_check", {"content_id": second})).id)
        missing = await ended(runtime, (await service.enqueue("quality_check", {"content_id": 99})).id)
    found = [[finding["check"] for finding in data["findings"]] for data in results]
    assert found == [[], ["duplicate"], ["too_short"], ["near_duplicate"]]
    assert [data["score"] for data in results] == [100, 50, 60, 70]
    assert (below.state, below.error) == (ExecutionState.FAILED, f"QualityTooLow: 50 of 100: 与内容 {first} 相同")
    assert missing.error == "NotFound: content 99 does not exist"


@pytest.mark.parametrize(
    ("body", "checks"),
    [
        (BODY, []),
        (BODY + "[a](https://example.org/x)", []),
        (BODY + "[a](/relative) [b](mailto:x@example.org)", ["bad_link", "bad_link"]),
        (BODY + " 赌博 CASINO", ["forbidden_word", "forbidden_word"]),
        ("一二三四五", ["too_short"]),
        ("一" * 31, ["too_long"]),
        ("", ["too_short"]),
    ],
)
def test_what_is_objected_to_in_a_text(body: str, checks: list[str]) -> None:
    longest = 30 if body.startswith("一") else 1000
    params = QualityCheckParams(
        content_id=1, min_words=10, max_words=longest, forbidden_words=["赌博", "casino", "casino"]
    )
    assert [finding.check for finding in of_body(body, params)] == checks


def test_titles_and_likeness() -> None:
    assert [finding.check for title in ("", " ", "T", "x" * 200) for finding in of_title(title)] == [
        "no_title",
        "no_title",
        "long_title",
    ]
    words = [str(number) for number in range(100)]
    assert likeness(words, words) == 1
    assert likeness(words, words[:50]) < 0.5
    assert likeness(words, words[::-1]) == 0
    assert (likeness(["a"], ["a"]), likeness(["a"], ["b"]), likeness([], [])) == (1, 0, 1)
