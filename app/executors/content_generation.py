"""`content_generation`: a Content row from real input."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from app.core.config import Settings, get_settings
from app.core.errors import NotFound
from app.executors.generators import Brief, Draft, GenerationFailed, Generator
from app.executors.generators.command import CommandGenerator
from app.executors.generators.feed import FeedGenerator
from app.executors.generators.openai import OpenAIGenerator
from app.executors.markdown import one_line, word_count
from app.executors.outbound import OUTBOUND_ERRORS
from app.models.content import LARGEST_ID, Account, Content
from app.scheduler.context import find_current_execution
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error

Line = StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")


class ContentGenerationParams(BaseModel):
    """Params of `content_generation`."""

    model_config = ConfigDict(extra="forbid")

    account_id: int = Field(ge=1, le=LARGEST_ID, description="The account in whose name it is written.")
    topic: Annotated[str, Line] = Field(max_length=200, description="What it is about.")
    generator: Literal["feed", "command", "openai"] | None = Field(
        default=None, description="What writes it; by default the setting GENERATOR."
    )
    feed: Annotated[str, Line] | None = Field(
        default=None,
        max_length=2000,
        description="Feed URL, or a file in data/feeds; by default the setting GENERATOR_FEED.",
    )
    limit: int = Field(default=10, ge=1, le=100, description="How many entries a digest has at most.")
    hold: bool = Field(
        default=False, description="It goes out by its id or by the pool only, for example after an approval."
    )


class ContentGenerationExecutor(TaskExecutor):
    """Lets a generator write a draft, then stores it. The draft is finished before the first write: nothing is
    held open in the database while a feed, a program or a model takes its time."""

    params_model = ContentGenerationParams
    timeout_seconds = 600.0
    max_attempts: ClassVar[int] = 3

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or get_settings()
        self._default = settings.generator
        self._generators: dict[str, Generator] = {
            "feed": FeedGenerator(settings),
            "command": CommandGenerator(settings),
            "openai": OpenAIGenerator(settings),
        }

    @property
    def executor_type(self) -> str:
        return "content_generation"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = ContentGenerationParams.model_validate(task_params)
        account = db.get(Account, params.account_id)
        if account is None:
            return _failure(params, NotFound("account", params.account_id))
        generator = params.generator or self._default
        brief = Brief(account.id, account.name, params.topic, params.feed, params.limit)
        try:
            draft = await self._generators[generator].generate(brief)
        except (GenerationFailed, *OUTBOUND_ERRORS) as error:
            return _failure(params, error)
        content = _store(db, brief, draft, is_held=params.hold)
        notice = draft.metadata.get("notice")
        if notice is not None:
            logger.warning("{}", notice)
        return TaskExecutionResult.success_result(
            message=f"成功生成内容: {params.topic}",
            data={"content_id": content.id, "title": content.title, "word_count": content.word_count},
            metadata={"generator": generator, "source": content.source, **draft.metadata},
        )


def _store(db: Session, brief: Brief, draft: Draft, *, is_held: bool) -> Content:
    execution = find_current_execution()
    content = Content(
        account_id=brief.account_id,
        topic=brief.topic,
        title=one_line(draft.title) or brief.topic,
        body=draft.body,
        word_count=word_count(draft.body),
        source=draft.source,
        is_held=is_held,
        execution_id=execution.id if execution is not None else None,
    )
    db.add(content)
    db.flush()
    return content


def _failure(params: ContentGenerationParams, error: Exception) -> TaskExecutionResult:
    return TaskExecutionResult.failure_result(message=f"内容生成失败: {params.topic}", error=describe_error(error))
