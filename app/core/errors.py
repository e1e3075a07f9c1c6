"""The error tree: every refusal of the scheduler, drawn once.

```
SchedulerError
├── InvalidRequest          a value is wrong: names the field and the remedy
│   └── InvalidParameters   an executor refused its params
├── ExecutorNotFound        no executor is registered under that type
├── NotFound                no such task, execution, account …
├── Conflict                the thing is there, but not in that state or version
├── NotPermitted            the one who asks may not do this
├── ReplayMismatch          an execution's code no longer calls the steps it has stored
├── SignalTimeout           no signal came in time
└── SchedulerUnavailable    the scheduler is stopped, or its database is out of reach
```

API problems (RFC 9457), CLI messages and `TaskExecutionResult.error` are made from the same object:
`code` never changes, `str(error)` says what was wrong and what to do in English, `error.said(language)` in the
language of whoever reads it, `errors` names the fields.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from app.core.language import Language, Said, in_language, joined


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: its dotted path (`schedule.expression`), what is wrong, and a stable kind."""

    field: str
    message: str
    kind: str = "invalid"

    def as_dict(self) -> dict[str, str]:
        """As plain JSON, in English."""
        return {"field": self.field, "message": str(self.message), "kind": self.kind}


class SchedulerError(Exception):
    """Base of every error the scheduler raises on purpose."""

    code = "scheduler_error"
    errors: tuple[FieldError, ...] = ()

    def said(self, language: Language) -> str:
        """What was wrong and what to do, in that language if it is known in it."""
        return in_language(sentence_of(self), language)


class InvalidRequest(SchedulerError):
    """A value is wrong. `errors` holds one entry a field; nothing was stored."""

    code = "invalid_request"

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__(
            joined((_of_field(error.field, error.message) for error in self.errors), Said("; ", "；"))
        )

    @classmethod
    def of(cls, field: str, message: str, kind: str = "invalid") -> InvalidRequest:
        """The common case of a single wrong field."""
        return cls([FieldError(field, message, kind)])


class InvalidParameters(InvalidRequest):
    """The executor refused its params; as `TaskExecutionResult.error` it reads `InvalidParameters`."""

    code = "invalid_params"


class ExecutorNotFound(SchedulerError):
    """No executor is registered under `task_type`."""

    code = "unknown_executor"

    def __init__(self, task_type: str, registered: Iterable[str] = ()) -> None:
        self.task_type = task_type
        names = sorted(registered)
        known = ", ".join(names) or "none"
        message = Said(
            f"no executor is registered for {task_type!r}; registered: {known}",
            f"没有为 {task_type!r} 注册执行器；已注册的有：{'、'.join(names) or '无'}",
        )
        self.errors = (FieldError("task_type", message, self.code),)
        super().__init__(message)


KINDS = {
    "account": "账号",
    "alert": "告警",
    "approval": "审批",
    "channel": "渠道",
    "circuit": "熔断器",
    "content": "内容",
    "execution": "执行",
    "pool entry": "内容池条目",
    "rule": "规则",
    "task": "任务",
    "token": "令牌",
    "workflow": "工作流",
}
"""What can be missing or be there twice, and its name in Chinese."""


class NotFound(SchedulerError):
    """No row of that kind under that key."""

    code = "not_found"

    def __init__(self, kind: str, key: object) -> None:
        self.kind = kind
        self.key = key
        super().__init__(Said(f"{kind} {key} does not exist", f"{KINDS[kind]} {key} 不存在"))


class Conflict(SchedulerError):
    """The thing exists but is in another state or version than the request assumes."""

    code = "conflict"

    @classmethod
    def of(cls, field: str, message: str) -> Self:
        """One that a value of the request makes: a name that is taken."""
        conflict = cls(_of_field(field, message))
        conflict.errors = (FieldError(field, message, cls.code),)
        return conflict

    @classmethod
    def taken(cls, kind: str, name: str) -> Self:
        """Something of that kind (one of `KINDS`) has the name already."""
        return cls.of(
            "name",
            Said(
                f"a {kind} named {name!r} exists; choose another name",
                f"名为 {name!r} 的{KINDS[kind]}已存在；请换一个名称",
            ),
        )


class VersionConflict(Conflict):
    """The thing was changed by somebody else since it was read."""

    def __init__(self, kind: str, key: object, *, found: int, expected: int) -> None:
        super().__init__(
            Said(
                f"version: {kind} {key} is at version {found}, not {expected}; read it again",
                f"version：{KINDS[kind]} {key} 的版本是 {found}，不是 {expected}；请重新读取",
            )
        )


class NotPermitted(SchedulerError):
    """The one who asks may not do this; the sentence says who may."""

    code = "not_permitted"


class ReplayMismatch(SchedulerError):
    """An execution that goes on called another step than the one stored at that place: its code has changed, or
    decides by what is not the same in every attempt (time, chance, a table)."""

    code = "replay_mismatch"


class SignalTimeout(SchedulerError, TimeoutError):
    """`wait_for_signal()` waited as long as it was told to, and nobody signalled."""

    code = "signal_timeout"

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        super().__init__(f"no signal {name!r} within {seconds:g} second{'' if seconds == 1 else 's'}")


class SchedulerUnavailable(SchedulerError):
    """The scheduler cannot serve now: not started, shutting down, or its database is out of reach."""

    code = "unavailable"


def sentence_of(error: Exception) -> str:
    """`str(error)`, in each language where the error was made with a `Said`."""
    return error.args[0] if error.args and isinstance(error.args[0], Said) else str(error)


def _of_field(field: str, message: str) -> Said:
    return Said(f"{field}: {message}", f"{field}：{in_language(message, 'zh')}")


def stack_of(error: BaseException) -> str:
    """The stack of an exception as text, for a log line. Were the exception handed to loguru, a sink with
    `diagnose`, its default, would add the values of variables, secrets among them."""
    return "".join(traceback.format_exception(error)).rstrip()
