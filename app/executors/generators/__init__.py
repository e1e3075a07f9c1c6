"""Generators: what turns a brief into a draft.

A generator is one method, so that a team can add its own; it raises `GenerationFailed` (or one of the outbound
errors) when there is no draft, and the executor makes a failed result of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from app.core.errors import SchedulerError


class GenerationFailed(SchedulerError):
    """The source is unusable: no entries, a command that failed, an API that refused."""

    code = "generation_failed"


@dataclass(frozen=True, slots=True)
class Brief:
    """What is to be written. `feed` and `limit` (entries) concern digests."""

    account_id: int
    account_name: str
    topic: str
    feed: str | None = None
    limit: int = 10

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Draft:
    """What was written: a title, a body in Markdown, what it was made from, and remarks for the result."""

    title: str
    body: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)


class Generator(Protocol):
    """Writes a draft."""

    async def generate(self, brief: Brief) -> Draft:
        """Write a draft for `brief`.

        Raises:
            GenerationFailed: the source gave nothing usable.
            OUTBOUND_ERRORS: the source was out of reach.
        """
