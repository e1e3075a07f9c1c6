"""The store of channels, rules and alerts: create, read, change, silence, acknowledge, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.errors import Conflict, InvalidRequest, NotFound
from app.core.language import Said
from app.core.redaction import MASK
from app.core.validation import field_errors
from app.db.database import begin_write
from app.models.alerting import Alert, AlertChannel, AlertRule, alert_rule_channels
from app.models.scheduled_task import ScheduledTask
from app.scheduler.alerting.apprise_channel import check_url
from app.scheduler.alerting.definitions import ChannelDefinition, RuleDefinition, stored_values

Model = TypeVar("Model", bound=BaseModel)


class Openness(StrEnum):
    """Which alerts to list."""

    OPEN = "open"
    RESOLVED = "resolved"
    ALL = "all"


class AlertStore:
    """Each method is one transaction. `on_change` is called after a rule was made or changed: it is due now."""

    def __init__(self, sessions: sessionmaker[Session], clock: Clock, on_change: Callable[[], None]) -> None:
        self._sessions = sessions
        self._clock = clock
        self._on_change = on_change

    # ------------------------------------------------------------ channels

    def create_channel(self, values: Mapping[str, Any]) -> AlertChannel:
        """Store a channel.

        Raises:
            InvalidRequest: the field is named; also where apprise is missing or does not know the URL.
            Conflict: the name is taken.
        """
        wanted = _parse(ChannelDefinition, values)
        url = wanted.url.get_secret_value()
        check_url(url)
        now = self._clock.now()
        channel = AlertChannel(
            name=wanted.name,
            url=url,
            language=wanted.language,
            is_active=wanted.is_active,
            created_at=now,
            updated_at=now,
        )
        with self._sessions() as session:
            session.add(channel)
            _commit(session, "channel", wanted.name)
        return channel

    def update_channel(self, channel_id: int, changes: Mapping[str, Any]) -> AlertChannel:
        """Change some fields of a channel; a masked URL stays what it is. Raises as `create_channel`; NotFound."""
        with self._sessions() as session:
            begin_write(session.connection())
            channel = _require(session, AlertChannel, "channel", channel_id)
            stored = {
                "name": channel.name,
                "url": channel.url,
                "language": channel.language,
                "is_active": channel.is_active,
            }
            kept = {name: value for name, value in changes.items() if name != "url" or not _is_masked(value)}
            wanted = _parse(ChannelDefinition, {**stored, **kept})
            url = wanted.url.get_secret_value()
            if url != channel.url:
                check_url(url)
            channel.name, channel.url, channel.language = wanted.name, url, wanted.language
            channel.is_active, channel.updated_at = wanted.is_active, self._clock.now()
            _commit(session, "channel", wanted.name)
            return channel

    def delete_channel(self, channel_id: int) -> None:
        """Rules that used it go on without. Raises NotFound."""
        with self._sessions() as session:
            session.delete(_require(session, AlertChannel, "channel", channel_id))
            session.commit()

    def channels(self) -> list[AlertChannel]:
        """All channels, by name."""
        with self._sessions() as session:
            return list(session.scalars(select(AlertChannel).order_by(AlertChannel.name)))

    def channel(self, channel_id: int) -> AlertChannel:
        """Raises NotFound."""
        with self._sessions() as session:
            return _require(session, AlertChannel, "channel", channel_id)

    def find_channel(self, name_or_id: str) -> AlertChannel:
        """By name, or by id where none has that name. Raises NotFound."""
        with self._sessions() as session:
            return _find(session, AlertChannel, "channel", name_or_id)

    # ------------------------------------------------------------ rules

    def create_rule(self, values: Mapping[str, Any]) -> AlertRule:
        """Store a rule; it is checked at once.

        Raises:
            InvalidRequest: the field is named: also a task or a channel that does not exist.
            Conflict: the name is taken.
        """
        wanted = _parse(RuleDefinition, values)
        now = self._clock.now()
        with self._sessions() as session:
            begin_write(session.connection())
            _refuse_unknown(session, wanted)
            rule = AlertRule(**wanted.columns(), next_check_at=now, created_at=now, updated_at=now)
            session.add(rule)
            _flush(session, "rule", wanted.name)
            _connect(session, rule.id, wanted.channel_ids)
            session.commit()
        self._on_change()
        return rule

    def update_rule(self, rule_id: int, changes: Mapping[str, Any]) -> AlertRule:
        """Change some fields of a rule. One that is paused closes its alerts, and tells nobody.

        Raises:
            NotFound; as `create_rule`.
        """
        now = self._clock.now()
        with self._sessions() as session:
            begin_write(session.connection())
            rule = _require(session, AlertRule, "rule", rule_id, lock=True)
            stored = stored_values(rule, _channels_of(session, [rule_id])[rule_id])
            wanted = _parse(RuleDefinition, {**stored, **changes})
            _refuse_unknown(session, wanted, only=changes)
            for name, value in wanted.columns().items():
                setattr(rule, name, value)
            rule.next_check_at = rule.updated_at = now
            _flush(session, "rule", wanted.name)
            if "channel_ids" in changes:
                session.execute(delete(alert_rule_channels).where(alert_rule_channels.c.rule_id == rule_id))
                _connect(session, rule_id, wanted.channel_ids)
            if not rule.is_active:
                _close(session, rule_id, "rule_paused", now)
            session.commit()
        self._on_change()
        return rule

    def silence_rule(self, rule_id: int, until: datetime | None) -> AlertRule:
        """Hold the rule's notices until `until` (aware); None: speak again. Alerts open and end all the same.

        Raises:
            NotFound.
        """
        with self._sessions() as session:
            begin_write(session.connection())
            rule = _require(session, AlertRule, "rule", rule_id, lock=True)
            rule.silenced_until = until.astimezone(UTC) if until is not None else None
            rule.next_check_at = rule.updated_at = self._clock.now()
            session.commit()
        self._on_change()
        return rule

    def delete_rule(self, rule_id: int) -> None:
        """Delete a rule and close its alerts; they stay in the list. Raises NotFound."""
        with self._sessions() as session:
            begin_write(session.connection())
            rule = _require(session, AlertRule, "rule", rule_id, lock=True)
            _close(session, rule_id, "rule_deleted", self._clock.now())
            session.delete(rule)
            session.commit()

    def rules(self) -> list[AlertRule]:
        """All rules, by name."""
        with self._sessions() as session:
            return list(session.scalars(select(AlertRule).order_by(AlertRule.name)))

    def rule(self, rule_id: int) -> AlertRule:
        """Raises NotFound."""
        with self._sessions() as session:
            return _require(session, AlertRule, "rule", rule_id)

    def find_rule(self, name_or_id: str) -> AlertRule:
        """By name, or by id where none has that name. Raises NotFound."""
        with self._sessions() as session:
            return _find(session, AlertRule, "rule", name_or_id)

    def channels_of(self, rule_ids: Iterable[int]) -> dict[int, list[int]]:
        """The channels of rules, by the rule's id."""
        with self._sessions() as session:
            return _channels_of(session, rule_ids)

    # ------------------------------------------------------------ alerts

    def alerts(
        self,
        *,
        openness: Openness = Openness.OPEN,
        rule_id: int | None = None,
        task_id: int | None = None,
        before_id: int | None = None,
        limit: int = 50,
    ) -> list[Alert]:
        """Alerts, newest first."""
        query = select(Alert).order_by(Alert.id.desc()).limit(limit)
        if openness is not Openness.ALL:
            query = query.where(Alert.resolved_at.is_(None) == (openness is Openness.OPEN))
        for column, value in ((Alert.rule_id, rule_id), (Alert.task_id, task_id)):
            if value is not None:
                query = query.where(column == value)
        if before_id is not None:
            query = query.where(Alert.id < before_id)
        with self._sessions() as session:
            return list(session.scalars(query))

    def alert(self, alert_id: int) -> Alert:
        """Raises NotFound."""
        with self._sessions() as session:
            return _require(session, Alert, "alert", alert_id)

    def acknowledge(self, alert_id: int, by: str) -> Alert:
        """Somebody knows: no reminders from now on. Doing it twice changes nothing.

        Raises:
            NotFound; Conflict: it is over.
        """
        with self._sessions() as session:
            begin_write(session.connection())
            alert = _require(session, Alert, "alert", alert_id)
            if alert.resolved_at is not None:
                raise Conflict(
                    Said(
                        f"alert {alert_id} is over; there is nothing to acknowledge",
                        f"告警 {alert_id} 已结束；没有需要确认的内容",
                    )
                )
            if alert.acknowledged_at is None:
                alert.acknowledged_at, alert.acknowledged_by = self._clock.now(), by
            session.commit()
            return alert


Row = TypeVar("Row", AlertChannel, AlertRule, Alert)
Named = TypeVar("Named", AlertChannel, AlertRule)


def _require(session: Session, model: type[Row], kind: str, key: int, *, lock: bool = False) -> Row:
    """`lock`: no check of a rule comes in between, and the rule is locked before its alerts, as a check does."""
    found = session.get(model, key, with_for_update=lock)
    if found is None:
        raise NotFound(kind, key)
    return found


def _find(session: Session, model: type[Named], kind: str, name_or_id: str) -> Named:
    found = session.scalar(select(model).where(model.name == name_or_id))
    if found is None and name_or_id.isdecimal() and len(name_or_id) < 19:
        found = session.get(model, int(name_or_id))
    if found is None:
        raise NotFound(kind, name_or_id)
    return found


def _parse(model: type[Model], values: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidRequest(field_errors(error)) from None


def _is_masked(value: Any) -> bool:
    return value is None or MASK in (
        value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    )


def _commit(session: Session, kind: str, name: str) -> None:
    _flush(session, kind, name)
    session.commit()


def _flush(session: Session, kind: str, name: str) -> None:
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict.taken(kind, name) from error


def _refuse_unknown(session: Session, wanted: RuleDefinition, only: Mapping[str, Any] | None = None) -> None:
    """Raises InvalidRequest for a task or channel that does not exist; `only`: what the change is about."""
    asked = wanted.model_fields_set if only is None else only
    if "task_id" in asked and wanted.task_id is not None and session.get(ScheduledTask, wanted.task_id) is None:
        raise InvalidRequest.of(
            "task_id", Said(f"task {wanted.task_id} does not exist", f"任务 {wanted.task_id} 不存在"), "not_found"
        )
    known = set(session.scalars(select(AlertChannel.id).where(AlertChannel.id.in_(wanted.channel_ids))))
    unknown = sorted(set(wanted.channel_ids) - known)
    if "channel_ids" in asked and unknown:
        raise InvalidRequest.of(
            "channel_ids", Said(f"channel {unknown[0]} does not exist", f"渠道 {unknown[0]} 不存在"), "not_found"
        )


def _connect(session: Session, rule_id: int, channel_ids: Iterable[int]) -> None:
    rows = [{"rule_id": rule_id, "channel_id": channel_id} for channel_id in dict.fromkeys(channel_ids)]
    if rows:
        session.execute(insert(alert_rule_channels), rows)


def _channels_of(session: Session, rule_ids: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {rule_id: [] for rule_id in rule_ids}
    query = select(alert_rule_channels).where(alert_rule_channels.c.rule_id.in_(found))
    for rule_id, channel_id in session.execute(query.order_by(alert_rule_channels.c.channel_id)):
        found[rule_id].append(channel_id)
    return found


def _close(session: Session, rule_id: int, resolution: str, now: datetime) -> None:
    """End the open alerts of a rule that no longer watches."""
    session.execute(
        update(Alert)
        .where(Alert.rule_id == rule_id, Alert.resolved_at.is_(None))
        .values(resolved_at=now, resolution=resolution)
    )
