"""Publishers: what takes a content to a place.

Delivering is repeatable: a page is replaced by itself, a webhook is sent again under the same idempotency key.
That a content was published is recorded by the executor, once.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.orm import Session

from app.core.errors import SchedulerError
from app.models.content import Content


class PublishingFailed(SchedulerError):
    """The place could not take the content, this time."""

    code = "publishing_failed"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        """`retry_after_seconds`: how long the place asks to be left alone."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class PublishingRefused(PublishingFailed):
    """The place does not want the content; the same request will not do better (`retry_on` may leave it out)."""

    code = "publishing_refused"


class Publisher(Protocol):
    """One place. `target` and `destination` are its key in `publications`."""

    @property
    def target(self) -> str: ...
    @property
    def destination(self) -> str: ...

    async def deliver(self, content: Content) -> str:
        """Take `content` there and return its location. Safe to repeat.

        Raises:
            PublishingFailed: it did not arrive. OUTBOUND_ERRORS: the place is out of reach.
        """

    async def finish(self, db: Session) -> None:
        """What is left to do when the publications are recorded and committed. Safe to repeat.

        Raises:
            PublishingFailed: it could not be done.
        """
