"""`/alerts`, `/alert-rules`, `/alert-channels`: what is wrong, who watches, and where it is said."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, create_model

from app.api import cursor as cursors
from app.api.auth import Admin, Operator, RuntimeOf, Viewer
from app.api.problems import documented
from app.api.schemas import ExecutionAnswer
from app.core.language import Language
from app.models.alerting import Alert, AlertChannel, AlertRule
from app.scheduler.alerting.apprise_channel import masked
from app.scheduler.alerting.conditions import Condition
from app.scheduler.alerting.definitions import ChannelDefinition, RuleDefinition, stored_values
from app.scheduler.alerting.messages import sentence
from app.scheduler.alerting.store import Openness
from app.scheduler.schedules import Moment

router = APIRouter(tags=["alerts"])

AlertId = Annotated[int, Path(ge=1, lt=2**63, description="Id of an alert.")]
RuleId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a rule.")]
ChannelId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a channel.")]
InLanguage = Annotated[Language, Query(description="Of the sentences.")]

_RULE = {
    "name": "three failures in a row",
    "condition": {"type": "failed", "times": 3},
    "severity": "critical",
    "channel_ids": [],
    "remind_seconds": 3600,
    "quiet_hours": {"start": "22:00", "end": "08:00", "timezone": "Asia/Shanghai"},
}
_CHANNEL = {"name": "on call", "url": "json://example.org/hook", "language": "zh"}


def _changes_of(
    name: str, model: type[BaseModel], example: dict[str, Any], **instead: tuple[Any, None]
) -> type[BaseModel]:
    fields: dict[str, Any] = {
        field: (info.rebuild_annotation() | None, None) for field, info in model.model_fields.items()
    } | instead
    config = ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})
    return create_model(name, __config__=config, __doc__="The fields to change; what is left out stays.", **fields)


RuleChanges = _changes_of(
    "AlertRuleChanges",
    RuleDefinition,
    {"severity": "critical"},
    condition=(Condition | None, None),  # a field's own annotation has lost what tells the kinds apart
)
ChannelChanges = _changes_of("AlertChannelChanges", ChannelDefinition, {"is_active": False})


class AlertAnswer(BaseModel):
    """One incident."""

    id: int
    rule_id: int
    rule_name: str
    kind: str
    severity: str
    sentence: str = Field(examples=["digest has failed 3 times in a row: ConnectError: refused"])
    task_id: int | None
    task_name: str | None
    details: dict[str, Any] = Field(description="The numbers in the sentence, as they were last seen.")
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None = Field(description="recovered, rule_paused or rule_deleted.")
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    last_notified_at: datetime | None
    notices: int = Field(description="How often the channels were told; 0 while it is held.")

    @classmethod
    def of(cls, alert: Alert, language: Language) -> AlertAnswer:
        columns = {name: getattr(alert, name) for name in cls.model_fields if hasattr(alert, name)}
        said = sentence(alert.kind, alert.task_name, alert.details).in_(language)
        return cls(**columns, sentence=said)


class AlertPage(BaseModel):
    items: list[AlertAnswer]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null: this was the last."
    )


class AlertRuleAnswer(BaseModel):
    """A stored rule. A condition written by plain SQL is shown as it is, whether it can be read or not."""

    id: int
    name: str
    task_id: int | None
    condition: dict[str, Any] = Field(examples=[{"type": "failed", "times": 3}])
    severity: str
    channel_ids: list[int]
    remind_seconds: float | None
    notify_recovery: bool
    quiet_hours: dict[str, str] | None = Field(
        examples=[{"start": "22:00", "end": "08:00", "timezone": "Asia/Shanghai"}]
    )
    check_seconds: float
    is_active: bool
    silenced_until: datetime | None
    next_check_at: datetime
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, rule: AlertRule, channel_ids: list[int]) -> AlertRuleAnswer:
        columns = {name: getattr(rule, name) for name in cls.model_fields if hasattr(rule, name)}
        return cls(**(columns | stored_values(rule, channel_ids)))


class AlertChannelAnswer(BaseModel):
    """A stored channel. Its URL is a secret: only its kind is shown."""

    id: int
    name: str
    url: str = Field(examples=["json://******"])
    language: Literal["en", "zh"]
    is_active: bool
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, channel: AlertChannel) -> AlertChannelAnswer:
        columns = {name: getattr(channel, name) for name in cls.model_fields}
        return cls(**{**columns, "url": masked(channel.url)})


class SilenceRequest(BaseModel):
    """Hold the notices of a rule."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"until": None}]})

    until: Moment | None = Field(description="Up to this moment, with its offset; null: speak again.")


# -------------------------------------------------------------------- alerts


@router.get("/alerts", summary="List alerts", responses=documented())
def list_alerts(
    runtime: RuntimeOf,
    _caller: Viewer,
    state: Annotated[Openness, Query(description="Which.")] = Openness.OPEN,
    rule_id: Annotated[int | None, Query(ge=1, lt=2**63, description="Opened by this rule.")] = None,
    task_id: Annotated[int | None, Query(ge=1, lt=2**63, description="About this task.")] = None,
    cursor: cursors.Cursor = None,
    limit: cursors.Limit = 50,
    language: InLanguage = "en",
) -> AlertPage:
    """Alerts, newest first; by default those that are open."""
    found = runtime.alerts.alerts(
        openness=state, rule_id=rule_id, task_id=task_id, before_id=cursors.decode(cursor), limit=limit + 1
    )
    more = len(found) > limit
    return AlertPage(
        items=[AlertAnswer.of(alert, language) for alert in found[:limit]],
        next_cursor=cursors.encode(found[limit - 1].id) if more else None,
    )


@router.get("/alerts/{alert_id}", summary="Show an alert", responses=documented(404))
def get_alert(alert_id: AlertId, runtime: RuntimeOf, _caller: Viewer, language: InLanguage = "en") -> AlertAnswer:
    """One alert. Its deliveries are executions of `alert_delivery`."""
    return AlertAnswer.of(runtime.alerts.alert(alert_id), language)


@router.post("/alerts/{alert_id}/acknowledge", summary="Acknowledge an alert", responses=documented(404, 409))
def acknowledge_alert(
    alert_id: AlertId, runtime: RuntimeOf, caller: Operator, language: InLanguage = "en"
) -> AlertAnswer:
    """Somebody knows: no reminders from now on; its end is told all the same."""
    return AlertAnswer.of(runtime.alerts.acknowledge(alert_id, caller.name), language)


# -------------------------------------------------------------------- rules


@router.get("/alert-rules", summary="List alert rules", responses=documented())
def list_alert_rules(runtime: RuntimeOf, _caller: Viewer) -> list[AlertRuleAnswer]:
    """All rules, by name."""
    rules = runtime.alerts.rules()
    channels = runtime.alerts.channels_of([rule.id for rule in rules])
    return [AlertRuleAnswer.of(rule, channels[rule.id]) for rule in rules]


@router.post("/alert-rules", status_code=201, summary="Create an alert rule", responses=documented(409))
def create_alert_rule(
    definition: Annotated[RuleDefinition, Body(examples=[_RULE])],
    runtime: RuntimeOf,
    _caller: Operator,
    response: Response,
) -> AlertRuleAnswer:
    """Store a rule. It is checked within seconds, by one of the nodes."""
    rule = runtime.alerts.create_rule(definition.model_dump())
    response.headers["Location"] = f"/api/v1/scheduler/alert-rules/{rule.id}"
    return _rule(runtime, rule)


@router.get("/alert-rules/{rule_id}", summary="Show an alert rule", responses=documented(404))
def get_alert_rule(rule_id: RuleId, runtime: RuntimeOf, _caller: Viewer) -> AlertRuleAnswer:
    """One rule."""
    return _rule(runtime, runtime.alerts.rule(rule_id))


@router.patch("/alert-rules/{rule_id}", summary="Change an alert rule", responses=documented(404, 409))
def update_alert_rule(
    rule_id: RuleId,
    changes: RuleChanges,  # type: ignore[valid-type]  # made by create_model from RuleDefinition
    runtime: RuntimeOf,
    _caller: Operator,
) -> AlertRuleAnswer:
    """Change the fields that are sent. A rule that is paused (`is_active: false`) closes its alerts."""
    return _rule(runtime, runtime.alerts.update_rule(rule_id, _sent(changes)))


@router.post("/alert-rules/{rule_id}/silence", summary="Silence an alert rule", responses=documented(404))
def silence_alert_rule(
    rule_id: RuleId, request: SilenceRequest, runtime: RuntimeOf, _caller: Operator
) -> AlertRuleAnswer:
    """Hold the rule's notices: alerts open and end, and what is still open afterwards is told then."""
    return _rule(runtime, runtime.alerts.silence_rule(rule_id, request.until))


@router.delete(
    "/alert-rules/{rule_id}", status_code=204, summary="Delete an alert rule", responses=documented(404)
)
def delete_alert_rule(rule_id: RuleId, runtime: RuntimeOf, _caller: Admin) -> None:
    """Delete the rule and close its alerts, which stay in the list."""
    runtime.alerts.delete_rule(rule_id)


def _rule(runtime: RuntimeOf, rule: AlertRule) -> AlertRuleAnswer:
    return AlertRuleAnswer.of(rule, runtime.alerts.channels_of([rule.id])[rule.id])


# -------------------------------------------------------------------- channels


@router.get("/alert-channels", summary="List alert channels", responses=documented())
def list_alert_channels(runtime: RuntimeOf, _caller: Viewer) -> list[AlertChannelAnswer]:
    """All channels, by name, without their URLs."""
    return [AlertChannelAnswer.of(channel) for channel in runtime.alerts.channels()]


@router.post("/alert-channels", status_code=201, summary="Create an alert channel", responses=documented(409))
def create_alert_channel(
    definition: Annotated[ChannelDefinition, Body(examples=[_CHANNEL])],
    runtime: RuntimeOf,
    _caller: Admin,
    response: Response,
) -> AlertChannelAnswer:
    """Store a receiver by its apprise URL, which is never shown again."""
    channel = runtime.alerts.create_channel(definition.model_dump())
    response.headers["Location"] = f"/api/v1/scheduler/alert-channels/{channel.id}"
    return AlertChannelAnswer.of(channel)


@router.get("/alert-channels/{channel_id}", summary="Show an alert channel", responses=documented(404))
def get_alert_channel(channel_id: ChannelId, runtime: RuntimeOf, _caller: Viewer) -> AlertChannelAnswer:
    """One channel, without its URL."""
    return AlertChannelAnswer.of(runtime.alerts.channel(channel_id))


@router.patch("/alert-channels/{channel_id}", summary="Change an alert channel", responses=documented(404, 409))
def update_alert_channel(
    channel_id: ChannelId,
    changes: ChannelChanges,  # type: ignore[valid-type]  # made by create_model from ChannelDefinition
    runtime: RuntimeOf,
    _caller: Admin,
) -> AlertChannelAnswer:
    """Change the fields that are sent. A masked URL stays what it is."""
    return AlertChannelAnswer.of(runtime.alerts.update_channel(channel_id, _sent(changes)))


@router.post(
    "/alert-channels/{channel_id}/test",
    status_code=202,
    summary="Test an alert channel",
    responses=documented(404),
)
async def test_alert_channel(channel_id: ChannelId, runtime: RuntimeOf, caller: Operator) -> ExecutionAnswer:
    """Send a test message; the execution says whether it was taken."""
    return ExecutionAnswer.model_validate(
        await runtime.commands.test_channel(channel_id, trigger="api", by=caller.name)
    )


@router.delete(
    "/alert-channels/{channel_id}", status_code=204, summary="Delete an alert channel", responses=documented(404)
)
def delete_alert_channel(channel_id: ChannelId, runtime: RuntimeOf, _caller: Admin) -> None:
    """Delete it; rules that used it go on without."""
    runtime.alerts.delete_channel(channel_id)


def _sent(changes: Any) -> Mapping[str, Any]:
    """The fields that the client has sent."""
    sent: Mapping[str, Any] = changes.model_dump(exclude_unset=True)
    return sent
