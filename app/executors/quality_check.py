"""`quality_check`: what a careful reader would object to before a content goes out, as a score and findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.language import Said
from app.db.outage import DATABASE_AWAY, OUTLIVED_ATTEMPTS
from app.executors.markdown import link_targets, web_address, words
from app.models.content import LARGEST_ID, Content
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error

BEST = 100
COMPARED = 100
"""Contents of the same account, the newest, that a content is compared with."""
_SHINGLE = 5
_NEAR = 0.8
"""Share of runs of five words that two contents have in common from which on one repeats the other."""
_LONGEST_TITLE = 120
_COST = {
    "too_short": 40,
    "too_long": 15,
    "no_title": 30,
    "long_title": 10,
    "bad_link": 20,
    "duplicate": 50,
    "near_duplicate": 30,
    "forbidden_word": 60,
}

Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class QualityCheckParams(BaseModel):
    """Params of `quality_check`."""

    model_config = ConfigDict(extra="forbid")

    content_id: int = Field(ge=1, le=LARGEST_ID, description="The content to look at.")
    min_words: int = Field(default=20, ge=0, le=1_000_000)
    max_words: int = Field(default=20_000, ge=1, le=1_000_000)
    forbidden_words: list[Word] = Field(default=[], max_length=1000, description="In whatever case.")
    min_score: int = Field(
        default=60, ge=0, le=BEST, description="Below it the check fails; 0: it never does, read `score`."
    )

    @model_validator(mode="after")
    def _consistent(self) -> QualityCheckParams:
        if self.min_words > self.max_words:
            raise ValueError(Said("min_words must not be more than max_words", "min_words 不能大于 max_words"))
        return self


@dataclass(frozen=True, slots=True)
class Finding:
    """One objection."""

    check: str
    message: str

    @property
    def cost(self) -> int:
        return _COST[self.check]


class QualityCheckExecutor(TaskExecutor):
    """Reads, and writes nothing: the same content gets the same score until its neighbours change."""

    params_model = QualityCheckParams
    max_attempts = OUTLIVED_ATTEMPTS
    retry_on = DATABASE_AWAY
    timeout_seconds = 60.0

    @property
    def executor_type(self) -> str:
        return "quality_check"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = QualityCheckParams.model_validate(task_params)
        content = db.get(Content, params.content_id)
        if content is None:
            error = NotFound("content", params.content_id)
            return TaskExecutionResult.failure_result("质量检查失败", error=describe_error(error))
        findings = [*of_title(content.title), *of_body(content.body, params), *_of_others(db, content)]
        return _result(content, params, findings)


def score_of(findings: list[Finding]) -> int:
    """100 without findings; each costs what `_COST` says, down to 0."""
    return max(BEST - sum(finding.cost for finding in findings), 0)


def of_title(title: str) -> Iterator[Finding]:
    if not title.strip():
        yield Finding("no_title", "没有标题")
    elif len(title) > _LONGEST_TITLE:
        yield Finding("long_title", f"标题有 {len(title)} 个字符，多于 {_LONGEST_TITLE}")


def of_body(body: str, params: QualityCheckParams) -> Iterator[Finding]:
    """Length, links and words of the text."""
    count = len(words(body))
    if count < params.min_words:
        yield Finding("too_short", f"只有 {count} 个词，少于 {params.min_words}")
    if count > params.max_words:
        yield Finding("too_long", f"有 {count} 个词，多于 {params.max_words}")
    for address in dict.fromkeys(link_targets(body)):
        if web_address(address) is None:
            yield Finding("bad_link", f"链接不是网址: {address[:200]}")
    text = body.casefold()
    for word in dict.fromkeys(params.forbidden_words):
        if word.casefold() in text:
            yield Finding("forbidden_word", f"含有禁用词: {word}")


def likeness(one: list[str], other: list[str]) -> float:
    """Share of runs of five words that two texts have in common, 0 to 1 (Jaccard)."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / len(first | second) if first and second else float(one == other)


def _shingles(text: list[str]) -> set[tuple[str, ...]]:
    return {tuple(text[start : start + _SHINGLE]) for start in range(len(text) - _SHINGLE + 1)}


def _of_others(db: Session, content: Content) -> Iterator[Finding]:
    """Whether it repeats an earlier content of its account."""
    query = (
        select(Content.id, Content.body)
        .where(Content.account_id == content.account_id, Content.id < content.id)
        .order_by(Content.id.desc())
        .limit(COMPARED)
    )
    own = words(content.body)
    for other_id, body in db.execute(query):
        if body == content.body:
            yield Finding("duplicate", f"与内容 {other_id} 相同")
            return
        share = likeness(own, words(body))
        if share >= _NEAR:
            yield Finding("near_duplicate", f"与内容 {other_id} 有 {share:.0%} 相同")
            return


def _result(content: Content, params: QualityCheckParams, findings: list[Finding]) -> TaskExecutionResult:
    score = score_of(findings)
    data = {
        "content_id": content.id,
        "title": content.title,
        "score": score,
        "passed": score >= params.min_score,
        "findings": [asdict(finding) for finding in findings],
    }
    if data["passed"]:
        return TaskExecutionResult.success_result(f"质量检查通过: {score} 分", data=data)
    reasons = "; ".join(finding.message for finding in findings)
    return TaskExecutionResult.failure_result(
        f"质量检查未通过: {score} 分", error=f"QualityTooLow: {score} of {BEST}: {reasons}", data=data
    )
