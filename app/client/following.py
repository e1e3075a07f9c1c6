"""What both clients wait for and follow: pages, ends, events. Pure; requests and pauses are the clients'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import httpx

from app.api.schemas import ChangesAnswer, ExecutionAnswer
from app.models.task_execution import FINAL_STATES, ExecutionState

ItemT_co = TypeVar("ItemT_co", covariant=True)

EVENTS_PATH = "/api/v1/scheduler/events"
FOLLOW_SECONDS = 0.5
"""How often to look while an execution runs."""
STREAM_TIMEOUT = httpx.Timeout(10.0, read=60.0)
"""Seconds. A stream where nothing happens is kept alive by a comment every fifteen."""
MISSED = ChangesAnswer(executions=[], is_partial=True, tasks=True, nodes=True)
"""What is told after a gap between two streams: anything may have changed."""


class Page(Protocol[ItemT_co]):
    """One page of a list."""

    @property
    def items(self) -> Sequence[ItemT_co]: ...
    @property
    def next_cursor(self) -> str | None: ...


def base_url(url: str) -> str:
    """`url` without a slash at its end.

    Raises:
        ValueError: it is no http address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"url: {url!r} is no http address; write one such as http://127.0.0.1:8000")
    return url.rstrip("/")


def is_over(execution: ExecutionAnswer) -> bool:
    """Whether waiting goes on for nothing: it has ended, or is parked until somebody mends it."""
    return execution.state in FINAL_STATES or execution.state is ExecutionState.PARKED


def not_over(execution: ExecutionAnswer, timeout: float) -> TimeoutError:
    """The error of a wait that took too long."""
    return TimeoutError(
        f"execution {execution.id} is still {execution.state.value} after {timeout:g} s; it goes on"
    )


class EventReader:
    """Reads a stream of server-sent events as its text comes."""

    def __init__(self) -> None:
        self.retry_seconds = 2.0
        self._rest = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, text: str) -> Iterator[ChangesAnswer]:
        """The changes that are complete with this piece of text."""
        # Not `splitlines()`: it also breaks at U+2028 and its like, which a message may contain.
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            changes = self._line(line.removesuffix("\r"))
            if changes is not None:
                yield changes

    def _line(self, line: str) -> ChangesAnswer | None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "retry" and value.isdecimal():
            self.retry_seconds = int(value) / 1000
        elif not line:
            name, data = self._name, "\n".join(self._data)
            self._name, self._data = "", []
            return ChangesAnswer.model_validate_json(data) if name == "changes" else None
        return None
