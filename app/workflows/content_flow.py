"""ContentHub's own flow, as an example that runs: generate → quality check → approval → pool → publish."""

from __future__ import annotations

from typing import Any

from app.workflows.builders import Flow, approval, chain, step

_DETAILS = """质量分 {{ steps.check.data.score }} / 100，{{ steps.draft.data.word_count }} 词。
{{ steps.check.data.findings|map('message')|join('\\n') }}"""


def content_flow() -> Flow:
    """The steps; `content_input()` is what they read.

    The draft is held: nothing publishes it before somebody has said yes. A no ends the flow without a failure.
    """
    draft = step(
        "content_generation",
        {
            "account_id": "{{ input.account_id }}",
            "topic": "{{ input.topic }}",
            "generator": "{{ input.generator }}",
            "hold": True,
        },
        id="draft",
    )
    content_id = draft.output("content_id")
    check = step("quality_check", {"content_id": content_id, "min_score": "{{ input.min_score }}"}, id="check")
    decision = approval(
        "发布「{{ steps.draft.data.title|truncate(100) }}」？",
        details=_DETAILS,
        on_reject="continue",
        timeout_seconds=7 * 86_400,
        on_timeout="reject",
    )
    pool = step(
        "add_to_pool",
        {"content_id": content_id, "priority": "{{ input.priority }}"},
        id="pool",
        when="steps.approval.data.approved",
    )
    publish = step("publish_due", {"limit": 1}, id="publish")
    return chain(draft, check, decision, pool, publish)


def content_input(
    topic: str,
    *,
    account_id: int = 1,
    generator: str | None = None,
    min_score: int = 60,
    priority: int = 0,
) -> dict[str, Any]:
    """What the flow is about. `min_score`: below it nobody is asked; `priority` in the pool, higher goes first."""
    return {
        "topic": topic,
        "account_id": account_id,
        "generator": generator,
        "min_score": min_score,
        "priority": priority,
    }
