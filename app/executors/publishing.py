"""`publishing`: contents go out, each once to each place, whatever is retried."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.clock import Clock, SystemClock
from app.core.config import Settings, get_settings
from app.core.errors import NotFound
from app.core.language import Said
from app.executors.outbound import OUTBOUND_ERRORS, WebUrl
from app.executors.publishers import Publisher, PublishingFailed, PublishingRefused
from app.executors.publishers.directory import DirectoryPublisher
from app.executors.publishers.webhook import WebhookPublisher
from app.models.content import LARGEST_ID, Content, Publication
from app.scheduler.context import find_current_execution
from app.scheduler.policies import RETRY_AFTER
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error

BATCH_SIZE = 100
"""How many contents one execution publishes at most when it is to publish all; the next one goes on."""


class PublishingParams(BaseModel):
    """Params of `publishing`."""

    model_config = ConfigDict(extra="forbid")

    content_id: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_ID,
        description="The content to publish; by default all that are not held and not published there yet, oldest "
        "first.",
    )
    target: Literal["directory", "webhook"] = Field(default="directory", description="The kind of place.")
    url: WebUrl | None = Field(
        default=None,
        max_length=500,
        description="The webhook's address; by default the setting PUBLISH_WEBHOOK_URL.",
    )

    @model_validator(mode="after")
    def _url_fits_target(self) -> PublishingParams:
        if self.url is not None and self.target != "webhook":
            raise ValueError(
                Said(
                    'url is for the target "webhook"; leave it out or change the target',
                    "url 只用于目标 “webhook”；请去掉，或改变目标",
                )
            )
        return self


@dataclass(slots=True)
class Tally:
    """What became of a batch."""

    published: list[dict[str, Any]] = field(default_factory=list)
    already_published: list[int] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        return {"published": self.published, "already_published": self.already_published}


class PublishingExecutor(TaskExecutor):
    """Delivers contents and records each in `publications` the moment it is delivered, by a commit of its own.

    That commit is on purpose not the one of the attempt's success: what has left the house has left it, also
    if a later content of the batch fails or the attempt is cancelled. A crash between delivery and record
    repeats the delivery, which is safe (see `Publisher`). The Session has no open write while anything waits.
    """

    params_model = PublishingParams
    timeout_seconds = 600.0
    max_attempts: ClassVar[int] = 3

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self._settings = settings or get_settings()
        self._clock = clock or SystemClock()

    @property
    def executor_type(self) -> str:
        return "publishing"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = PublishingParams.model_validate(task_params)
        tally = Tally()
        try:
            publisher = self._publisher(params)
            contents = _wanted(db, params, publisher)
            await self._publish(db, publisher, contents, tally)
            await publisher.finish(db)
        except (NotFound, PublishingFailed) as error:
            tally.failures.append(error)
        return _result(tally)

    def _publisher(self, params: PublishingParams) -> Publisher:
        settings = self._settings
        if params.target == "directory":
            return DirectoryPublisher(settings.publish_directory, settings.publish_base_url)
        url = params.url or settings.publish_webhook_url
        if url is None:
            raise PublishingRefused("no webhook is known; give url in the params or set PUBLISH_WEBHOOK_URL")
        secret = settings.publish_webhook_secret
        return WebhookPublisher(
            url,
            secret.get_secret_value() if secret is not None else None,
            self._clock,
            # The operator's own webhook may be an internal one; an address from params is guarded.
            allow_private=settings.http_allow_private or url == settings.publish_webhook_url,
        )

    async def _publish(self, db: Session, publisher: Publisher, contents: list[Content], tally: Tally) -> None:
        execution = find_current_execution()
        for number, content in enumerate(contents):
            if execution is not None:
                execution.progress(number / len(contents), content.title)
            await asyncio.sleep(0)  # where a cancellation arrives, also between pages that are only written
            if _is_published(db, publisher, content):
                tally.already_published.append(content.id)
                continue
            try:
                location = await publisher.deliver(content)
            except PublishingRefused as error:
                tally.failures.append(error)  # this one; the next may be welcome
                continue
            except (PublishingFailed, *OUTBOUND_ERRORS) as error:
                tally.failures.append(error)
                return
            if self._record(db, publisher, content, location):
                tally.published.append({"content_id": content.id, "title": content.title, "location": location})
            else:
                tally.already_published.append(content.id)

    def _record(self, db: Session, publisher: Publisher, content: Content, location: str) -> bool:
        """Record and commit the publication; False: another attempt was faster."""
        publication = Publication(
            content_id=content.id,
            target=publisher.target,
            destination=publisher.destination,
            location=location,
            published_at=self._clock.now(),
        )
        try:
            with db.begin_nested():
                db.add(publication)
        except IntegrityError:
            recorded = False
        else:
            recorded = True
        db.commit()
        return recorded


def _published(publisher: Publisher) -> Any:
    return exists().where(
        Publication.content_id == Content.id,
        Publication.target == publisher.target,
        Publication.destination == publisher.destination,
    )


def _is_published(db: Session, publisher: Publisher, content: Content) -> bool:
    return db.scalar(select(Content.id).where(Content.id == content.id, _published(publisher))) is not None


def _wanted(db: Session, params: PublishingParams, publisher: Publisher) -> list[Content]:
    """The content asked for, or the oldest that are not published there yet."""
    if params.content_id is None:
        pending = select(Content).where(~_published(publisher), ~Content.is_held).order_by(Content.id)
        pending = pending.limit(BATCH_SIZE)
        return list(db.scalars(pending))
    content = db.get(Content, params.content_id)
    if content is None:
        raise NotFound("content", params.content_id)
    return [content]


def _result(tally: Tally) -> TaskExecutionResult:
    done = len(tally.published)
    if tally.failures:
        return TaskExecutionResult.failure_result(
            message=f"内容发布失败: {len(tally.failures)} 处失败，{done} 篇已发布",
            error=describe_error(tally.failures[0]),
            data=tally.as_data(),
            metadata={"failures": [describe_error(failure) for failure in tally.failures]} | _patience(tally),
        )
    return TaskExecutionResult.success_result(message=_success_message(tally), data=tally.as_data())


def _patience(tally: Tally) -> dict[str, float]:
    asked = [failure.retry_after_seconds for failure in tally.failures if isinstance(failure, PublishingFailed)]
    return {RETRY_AFTER: max(seconds)} if (seconds := [wait for wait in asked if wait is not None]) else {}


def _success_message(tally: Tally) -> str:
    if len(tally.published) == 1:
        return f"成功发布内容: {tally.published[0]['title']}"
    if tally.published:
        return f"成功发布 {len(tally.published)} 篇内容"
    if tally.already_published:
        return "内容此前已发布，未重复发布"
    return "没有待发布的内容"
