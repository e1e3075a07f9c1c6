"""Rules and channels as they are asked for."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from app.core.language import Language, Said
from app.models.alerting import AlertRule
from app.scheduler.alerting.conditions import Condition
from app.scheduler.definitions import ShortText, ZoneName
from app.scheduler.windows import WallTime

Id = Annotated[int, Field(ge=1, lt=2**63, strict=True)]


class QuietSpan(BaseModel):
    """From `start` up to `end`, on the clocks of `timezone`, every day; over midnight where `end` is earlier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: WallTime = Field(examples=["22:00"])
    end: WallTime = Field(examples=["08:00"])
    timezone: ZoneName = "UTC"

    @model_validator(mode="after")
    def _not_empty(self) -> QuietSpan:
        if time.fromisoformat(self.start) == time.fromisoformat(self.end):
            raise ValueError(
                Said(
                    "end must differ from start; to be quiet all day, pause the rule",
                    "end 须与 start 不同；若要全天静默，请暂停该规则",
                )
            )
        return self


class RuleDefinition(BaseModel):
    """When to raise an alert, and how to speak of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ShortText
    task_id: Id | None = Field(default=None, description="Null: all tasks, each with an alert of its own.")
    condition: Condition
    severity: Literal["warning", "critical"] = "warning"
    """`critical` is told in quiet hours, too."""
    channel_ids: list[Id] = Field(default=[], max_length=50)
    """Where to say it. Without a channel alerts are only recorded."""
    remind_seconds: float | None = Field(default=None, ge=60, le=366 * 86_400, allow_inf_nan=False, strict=True)
    """Say it again after this long while it is open and nobody has acknowledged it; null: never."""
    notify_recovery: bool = Field(default=True, strict=True)
    quiet_hours: QuietSpan | None = None
    check_seconds: float = Field(default=30, ge=5, le=86_400, allow_inf_nan=False, strict=True)
    """How often to look."""
    is_active: bool = Field(default=True, strict=True)

    def columns(self) -> dict[str, Any]:
        """The columns of `alert_rules` that hold this definition."""
        numbers = self.condition.model_dump(mode="json")
        quiet = self.quiet_hours
        return {
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "kind": numbers.pop("type"),
            "condition": numbers,
            "quiet_from": quiet.start if quiet else None,
            "quiet_until": quiet.end if quiet else None,
            "quiet_timezone": quiet.timezone if quiet else "UTC",
        }


_PLAIN_FIELDS = ("name", "task_id", "severity", "remind_seconds", "notify_recovery", "check_seconds", "is_active")


def stored_values(rule: AlertRule, channel_ids: list[int]) -> dict[str, Any]:
    """A stored rule as the values of its definition, unchecked.

    Plain SQL may have written what makes none, and a change that mends it must not be refused for what it mends.
    """
    quiet = None
    if rule.quiet_from is not None and rule.quiet_until is not None:
        quiet = {"start": rule.quiet_from, "end": rule.quiet_until, "timezone": rule.quiet_timezone}
    return {
        "condition": {"type": rule.kind, **rule.condition},
        "channel_ids": channel_ids,
        "quiet_hours": quiet,
        **{name: getattr(rule, name) for name in _PLAIN_FIELDS},
    }


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


class ChannelDefinition(BaseModel):
    """A receiver, by its apprise URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ShortText
    url: Annotated[SecretStr, BeforeValidator(_stripped), Field(min_length=1, max_length=4000)]
    """Such as `json://example.org/hook`, `mailto://user:password@example.org`, `slack://…`. Never shown again."""
    language: Language = "zh"
    """Of the messages."""
    is_active: bool = Field(default=True, strict=True)
