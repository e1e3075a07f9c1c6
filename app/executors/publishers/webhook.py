"""`webhook`: a signed POST to a receiver.

The body is JSON and the same bytes on every repetition. Headers:

- `Idempotency-Key`: the same for each repetition, so that a receiver can take the content once.
- `X-ContentHub-Timestamp`: seconds since 1970 at which this request was signed.
- `X-ContentHub-Signature`: `sha256=` and the hex HMAC-SHA256, under PUBLISH_WEBHOOK_SECRET, of the timestamp,
  a full stop and the body: `HMAC(secret, timestamp + "." + body)`. Receivers compare in constant time and
  refuse old timestamps. Without a configured secret both headers are left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import uuid
from http import HTTPStatus

from loguru import logger
from pydantic_core import to_json
from sqlalchemy.orm import Session

from app.core.clock import Clock
from app.executors.markdown import one_line, to_html
from app.executors.outbound import Fetched, fetch, outbound_client, presentable, retry_after_seconds
from app.executors.publishers import PublishingFailed, PublishingRefused
from app.models.content import Content

TIMEOUT_SECONDS = 30.0
WAIT_BUDGET_SECONDS = 30.0
"""How long one delivery waits, in all, when the receiver asks for patience."""
_ANSWER_BYTES = 4096
_DETAIL_CHARACTERS = 200
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class WebhookPublisher:
    """Posts contents to `url`."""

    target = "webhook"

    def __init__(self, url: str, secret: str | None, clock: Clock, *, allow_private: bool) -> None:
        self.destination = url
        self._secret = secret
        self._clock = clock
        self._allow_private = allow_private

    async def deliver(self, content: Content) -> str:
        body = payload(content)
        key = idempotency_key(content, self.destination)
        budget = WAIT_BUDGET_SECONDS
        while True:
            answer = await self._post(body, key)
            if answer.is_success:
                return answer.url
            wait = retry_after_seconds(answer, self._clock.now())
            if wait is None or wait > budget:
                raise _failure(answer, wait)
            logger.info("{} answered HTTP {}, next try in {:g} s", answer.url, answer.status, wait)
            # A receiver that says "now" again and again uses the budget up, too.
            budget -= max(wait, 1.0)
            await asyncio.sleep(wait)

    async def finish(self, db: Session) -> None:
        """Nothing is left to do."""

    async def _post(self, body: bytes, key: str) -> Fetched:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        if self._secret is not None:
            timestamp = str(int(self._clock.now().timestamp()))
            headers["X-ContentHub-Timestamp"] = timestamp
            headers["X-ContentHub-Signature"] = signature(self._secret, timestamp, body)
        async with outbound_client(allow_private=self._allow_private) as client:
            request = client.build_request("POST", self.destination, headers=headers, content=body)
            return await fetch(client, request, limit_bytes=_ANSWER_BYTES, timeout_seconds=TIMEOUT_SECONDS)


def payload(content: Content) -> bytes:
    """The body of the request: no clock and no attempt in it, so a repetition is the same bytes."""
    return to_json(
        {
            "event": "content.published",
            "content": {
                "id": content.id,
                "account_id": content.account_id,
                "topic": content.topic,
                "title": content.title,
                "body_markdown": content.body,
                "body_html": to_html(content.body),
                "word_count": content.word_count,
                "source": content.source,
                "created_at": content.created_at,
            },
        }
    )


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the hex HMAC-SHA256 of `timestamp.body`."""
    signed = timestamp.encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def idempotency_key(content: Content, destination: str) -> str:
    """The same for each delivery of `content` to `destination`; the creation time tells installations apart."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{destination}#{content.id}@{content.created_at.isoformat()}"))


def _failure(answer: Fetched, wait: float | None) -> PublishingFailed:
    detail = one_line(answer.text)[:_DETAIL_CHARACTERS]
    sentence = f"{presentable(answer.url)} answered HTTP {answer.status}" + (f": {detail}" if detail else "")
    permanent = answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in _LATER
    return PublishingRefused(sentence) if permanent else PublishingFailed(sentence, retry_after_seconds=wait)
