"""The check of rules that are due: looked at outside, settled in one transaction.

Any node checks; there is no leader. Looking costs reads and decides nothing. Settling claims the rule first, by
moving its `next_check_at` on: whoever comes second finds nothing to claim and writes nothing. An alert, its notice
count and the executions that deliver the notice are one transaction, and the open alert of a subject is unique, so
an incident is told once however many nodes look at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, cast

from loguru import logger
from sqlalchemy import Connection, Table, func, insert, select, update
from sqlalchemy.orm import Session

from app.core.errors import InvalidRequest
from app.models.alerting import Alert, AlertChannel, AlertRule, alert_rule_channels
from app.models.task_execution import Execution
from app.scheduler.alerting.conditions import Breach, stored_condition
from app.scheduler.alerting.observing import DELIVERY, observe
from app.scheduler.alerting.quiet import QuietHours
from app.scheduler.alerting.verdicts import GoesOn, IsOver, Manners, Notice, OpenAlert, Opens, Verdict, verdicts
from app.scheduler.claims import ready
from app.scheduler.executions import executions, insert_once
from app.scheduler.policies import RetryPolicy
from app.scheduler.requests import execution_values
from app.scheduler.schedules import zone_of
from app.scheduler.steps import Carry
from app.services.scheduler_service import describe_error

rules = cast("Table", AlertRule.__table__)
alerts = cast("Table", Alert.__table__)
channels = cast("Table", AlertChannel.__table__)

RULES_AT_ONCE = 50
OPENED_AT_ONCE = 100
"""New alerts of a rule in one check; the others open in the next ones."""
PRIORITY = 100
"""Of deliveries: when everything is late, the word about it must not be."""
RETRY = RetryPolicy(max_attempts=8, backoff_seconds=5, backoff_factor=3, backoff_max_seconds=1800)
"""About 5, 15, 45 seconds, then 2, 7, 20 and 30 minutes: an hour in all."""


@dataclass(frozen=True, slots=True)
class Look:
    """A rule that is due, and who breaches it."""

    rule_id: int
    rule_name: str
    kind: str
    severity: str
    check_seconds: float
    looked_at: datetime
    manners: Manners
    breaches: dict[str, Breach] | None
    """None: the rule cannot be read; its alerts stay as they are."""


def due_at(session: Session) -> datetime | None:
    """When the next rule is due; None: there is none."""
    earliest: datetime | None = session.scalar(select(func.min(rules.c.next_check_at)).where(rules.c.is_active))
    return earliest


def due_deliveries(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Ids of up to `limit` deliveries that may start at `now` and that nobody has; found by their priority."""
    of_alerts = (executions.c.priority == PRIORITY, executions.c.task_type == DELIVERY)
    query = ready(now).where(*of_alerts).with_only_columns(executions.c.id)
    return list(connection.scalars(query.order_by(executions.c.run_at).limit(limit)))


def look_at_due(session: Session, now: datetime) -> list[Look]:
    """Look at what the rules that are due at `now` are about. One that cannot be read harms no other."""
    due = (
        select(AlertRule)
        .where(AlertRule.is_active, AlertRule.next_check_at <= now)
        .order_by(AlertRule.next_check_at)
        .limit(RULES_AT_ONCE)
    )
    return [_look(session, rule, now) for rule in session.scalars(due).all()]


def _look(session: Session, rule: AlertRule, now: datetime) -> Look:
    breaches: dict[str, Breach] | None
    manners = Manners()
    try:
        manners = manners_of(rule)
        breaches = observe(session, stored_condition(rule.kind, rule.condition), rule.task_id, now)
    except (InvalidRequest, ValueError) as error:  # plain SQL has written numbers or times that are none
        logger.error("告警规则 {} ({}) 无法解析，已跳过: {}", rule.id, rule.name, describe_error(error))
        breaches = None
    return Look(rule.id, rule.name, rule.kind, rule.severity, rule.check_seconds, now, manners, breaches)


def manners_of(rule: AlertRule) -> Manners:
    """How a stored rule speaks.

    Raises:
        InvalidRequest, ValueError: its quiet hours cannot be read.
    """
    quiet = None
    if rule.quiet_from is not None and rule.quiet_until is not None:
        zone_of(rule.quiet_timezone)
        quiet = QuietHours(
            time.fromisoformat(rule.quiet_from), time.fromisoformat(rule.quiet_until), rule.quiet_timezone
        )
    return Manners(
        is_critical=rule.severity == "critical",
        remind_seconds=rule.remind_seconds,
        notify_recovery=rule.notify_recovery,
        quiet=quiet,
        silenced_until=rule.silenced_until,
    )


def settle(
    connection: Connection,
    looks: Sequence[Look],
    *,
    now: datetime,
    owner_of: Callable[[dict[str, Any]], str | None],
    carry: Carry,
) -> list[Execution]:
    """Open, keep and resolve the alerts of the rules that this transaction claims; returns the deliveries."""
    recorded: list[Execution] = []
    for look in looks:
        if not _claim(connection, look, now) or look.breaches is None:
            continue
        receivers = _receivers(connection, look.rule_id)
        found = verdicts(_open_alerts(connection, look.rule_id), look.breaches, look.manners, now)
        for verdict in _bounded(found):
            for values in _apply(connection, look, verdict, receivers, now):
                values["owner"] = owner_of(values)
                delivery = insert_once(connection, values)
                if delivery.is_new:
                    recorded.append(delivery.execution)
    carry(connection, recorded)
    return recorded


def _claim(connection: Connection, look: Look, now: datetime) -> bool:
    """Take the check that is due; False: another node has it, or the rule is not the one that was looked at."""
    due = (
        select(rules.c.id)
        .where(
            rules.c.id == look.rule_id,
            rules.c.is_active,
            rules.c.next_check_at <= now,
            rules.c.updated_at <= look.looked_at,
        )
        .with_for_update(skip_locked=True)  # never wait: the journal's other writes would wait, too
    )
    if connection.scalar(due) is None:
        return False
    connection.execute(
        update(rules)
        .where(rules.c.id == look.rule_id)
        .values(next_check_at=now + timedelta(seconds=look.check_seconds))
    )
    return True


def _receivers(connection: Connection, rule_id: int) -> list[int]:
    query = (
        select(channels.c.id)
        .join(alert_rule_channels, alert_rule_channels.c.channel_id == channels.c.id)
        .where(alert_rule_channels.c.rule_id == rule_id, channels.c.is_active)
        .order_by(channels.c.id)
    )
    return list(connection.scalars(query))


def _open_alerts(connection: Connection, rule_id: int) -> dict[str, OpenAlert]:
    query = select(alerts).where(alerts.c.rule_id == rule_id, alerts.c.resolved_at.is_(None))
    return {
        row.subject: OpenAlert(row.id, row.acknowledged_at is not None, row.last_notified_at, row.notices)
        for row in connection.execute(query)
    }


def _bounded(found: list[Verdict]) -> Iterator[Verdict]:
    opened = 0
    for verdict in found:
        opened += isinstance(verdict, Opens)
        if not isinstance(verdict, Opens) or opened <= OPENED_AT_ONCE:
            yield verdict


def _apply(
    connection: Connection, look: Look, verdict: Verdict, receivers: list[int], now: datetime
) -> list[dict[str, Any]]:
    """Store what becomes of one alert; returns the executions that tell of it, as rows to be."""
    match verdict:
        case Opens(breach, notice):
            subject = breach.subject
            values = {
                "rule_id": look.rule_id,
                "rule_name": look.rule_name,
                "kind": look.kind,
                "severity": look.severity,
                "subject": subject.key,
                "task_id": subject.task_id,
                "task_name": subject.name,
                "details": breach.details,
                "opened_at": now,
                "notices": 0,
            }
            alert_id = connection.execute(insert(alerts).values(values).returning(alerts.c.id)).scalar_one()
            return _notify(connection, look, alert_id, 0, notice, receivers, now)
        case GoesOn(alert, breach, notice):
            connection.execute(update(alerts).where(alerts.c.id == alert.id).values(details=breach.details))
            return _notify(connection, look, alert.id, alert.notices, notice, receivers, now)
        case IsOver(alert, notice_at):
            connection.execute(
                update(alerts).where(alerts.c.id == alert.id).values(resolved_at=now, resolution="recovered")
            )
            notice = Notice.RESOLVED if notice_at is not None else None
            return _notify(connection, look, alert.id, alert.notices, notice, receivers, now, run_at=notice_at)


def _notify(
    connection: Connection,
    look: Look,
    alert_id: int,
    notices: int,
    notice: Notice | None,
    receivers: list[int],
    now: datetime,
    *,
    run_at: datetime | None = None,
) -> list[dict[str, Any]]:
    """Count a notice and return its deliveries, one a channel. Without a channel nobody was told."""
    if notice is None or not receivers:
        return []
    number = notices + 1
    connection.execute(update(alerts).where(alerts.c.id == alert_id).values(notices=number, last_notified_at=now))
    return [
        execution_values(
            now,
            task_type=DELIVERY,
            params={"notice": notice.value, "channel_id": channel_id, "alert_id": alert_id},
            run_at=run_at,
            priority=PRIORITY,
            idempotency_key=f"alert:{alert_id}:{number}:{channel_id}",
            trigger="alert",
            triggered_by=look.rule_name,
        )
        | {"retry": RETRY.model_dump(mode="json")}
        for channel_id in receivers
    ]
