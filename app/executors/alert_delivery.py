"""`alert_delivery`: hands one notice of one alert to one channel. Enqueued by `app.scheduler.alerting`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.clock import Clock, SystemClock
from app.core.errors import SchedulerError
from app.core.language import Language, Said
from app.models.alerting import Alert, AlertChannel
from app.scheduler.alerting.apprise_channel import MessageType, send
from app.scheduler.alerting.messages import AlertText, compose, sentence
from app.scheduler.alerting.observing import DELIVERY
from app.scheduler.alerting.verdicts import Notice
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error

_KINDS: dict[Notice, MessageType] = {
    Notice.OPENED: "failure",
    Notice.REMINDER: "warning",
    Notice.RESOLVED: "success",
    Notice.TEST: "info",
}


class AlertDeliveryParams(BaseModel):
    """Params of `alert_delivery`: no secrets; the channel's URL is read when it is needed."""

    model_config = ConfigDict(extra="forbid")

    notice: Notice
    channel_id: int = Field(ge=1, lt=2**63)
    alert_id: int | None = Field(default=None, ge=1, lt=2**63, description="None in a test of the channel.")


class AlertDeliveryExecutor(TaskExecutor):
    """Sends by apprise. Tried again as the execution's retry policy says: a notice may come twice, not never."""

    params_model = AlertDeliveryParams
    timeout_seconds = 120
    max_attempts = 3

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    @property
    def executor_type(self) -> str:
        return DELIVERY

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        params = AlertDeliveryParams.model_validate(task_params)
        channel = db.get(AlertChannel, params.channel_id)
        alert = db.get(Alert, params.alert_id) if params.alert_id is not None else None
        if channel is None or not channel.is_active:
            return TaskExecutionResult.success_result(message=f"告警渠道 {params.channel_id} 已删除或停用，未发送")
        if alert is None and params.notice is not Notice.TEST:
            return TaskExecutionResult.success_result(message=f"告警 {params.alert_id} 已删除，未发送")
        name, url = channel.name, channel.url
        text = self._compose(params.notice, alert, "en" if channel.language == "en" else "zh")
        db.rollback()  # nothing is held open while the receiver takes its time
        try:
            send(url, text.title, text.body, _KINDS[params.notice])
        except SchedulerError as error:
            return TaskExecutionResult.failure_result(message=f"告警发送失败: {name}", error=describe_error(error))
        return TaskExecutionResult.success_result(message=f"告警已发送: {name}: {text.title}")

    def _compose(self, notice: Notice, alert: Alert | None, language: Language) -> AlertText:
        now = self._clock.now()
        if alert is None:
            nothing = Said("", "")
            return compose(
                notice=notice,
                severity="warning",
                said=nothing,
                rule_name="",
                opened_at=now,
                now=now,
                language=language,
            )
        return compose(
            notice=notice,
            severity=alert.severity,
            said=sentence(alert.kind, alert.task_name, alert.details),
            rule_name=alert.rule_name,
            opened_at=alert.opened_at,
            now=alert.resolved_at or now,
            language=language,
        )
