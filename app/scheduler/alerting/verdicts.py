"""What becomes of alerts: which open, which are over, and who is told now. Pure functions of values.

One notice per incident; then reminders, if the rule asks for them; and one when it is over, if the first was sent.
In quiet hours and while its rule is silenced an alert opens all the same, and its notice is held: it goes out
afterwards if the alert is still open, and never if it is not. A critical rule knows no quiet hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.scheduler.alerting.conditions import Breach
from app.scheduler.alerting.quiet import QuietHours


class Notice(StrEnum):
    """What the channels are told."""

    OPENED = "opened"
    REMINDER = "reminder"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Manners:
    """How a rule speaks."""

    is_critical: bool = False
    remind_seconds: float | None = None
    notify_recovery: bool = True
    quiet: QuietHours | None = None
    silenced_until: datetime | None = None

    def is_held(self, now: datetime) -> bool:
        """Whether notices wait at `now`."""
        return self._is_silenced(now) or self._is_quiet(now)

    def _is_silenced(self, now: datetime) -> bool:
        return self.silenced_until is not None and now < self.silenced_until

    def _is_quiet(self, now: datetime) -> bool:
        return self.quiet is not None and not self.is_critical and self.quiet.covers(now)

    def recovery_at(self, now: datetime) -> datetime | None:
        """When to tell of a recovery at `now`; None: not at all."""
        if not self.notify_recovery or self._is_silenced(now):
            return None
        return self.quiet.over_at(now) if self.quiet is not None and self._is_quiet(now) else now


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that is open, as it is stored."""

    id: int
    is_acknowledged: bool
    last_notified_at: datetime | None
    notices: int


@dataclass(frozen=True, slots=True)
class Opens:
    """A new incident; `notice`: told now."""

    breach: Breach
    notice: Notice | None


@dataclass(frozen=True, slots=True)
class GoesOn:
    """An incident that is still there."""

    alert: OpenAlert
    breach: Breach
    notice: Notice | None


@dataclass(frozen=True, slots=True)
class IsOver:
    """An incident that has ended; `notice_at`: when those who were told of it are told so."""

    alert: OpenAlert
    notice_at: datetime | None


Verdict = Opens | GoesOn | IsOver


def verdicts(
    open_alerts: Mapping[str, OpenAlert], breaches: Mapping[str, Breach], manners: Manners, now: datetime
) -> list[Verdict]:
    """What `breaches`, seen at `now`, make of the open alerts of a rule; both by the subject's key."""
    return [
        *(
            Opens(breach, None if manners.is_held(now) else Notice.OPENED)
            for key, breach in breaches.items()
            if key not in open_alerts
        ),
        *(
            GoesOn(alert, breaches[key], _notice_of(alert, manners, now))
            for key, alert in open_alerts.items()
            if key in breaches
        ),
        *(
            IsOver(alert, manners.recovery_at(now) if alert.notices else None)
            for key, alert in open_alerts.items()
            if key not in breaches
        ),
    ]


def _notice_of(alert: OpenAlert, manners: Manners, now: datetime) -> Notice | None:
    """What to say of an alert that goes on. Whoever has acknowledged it knows."""
    if alert.is_acknowledged or manners.is_held(now):
        return None
    if alert.notices == 0 or alert.last_notified_at is None:
        return Notice.OPENED
    if manners.remind_seconds is None:
        return None
    due = alert.last_notified_at + timedelta(seconds=manners.remind_seconds)
    return Notice.REMINDER if now >= due else None
