"""What an alert says, from its stored numbers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from app.core.errors import InvalidRequest
from app.core.language import Language, Said
from app.scheduler.alerting.verdicts import Notice
from app.scheduler.description import say_duration

_SEVERITIES = {"warning": Said("warning", "警告"), "critical": Said("CRITICAL", "严重")}


class AlertText(NamedTuple):
    """A message: one line, and what is below it."""

    title: str
    body: str


def sentence(kind: str, name: str | None, details: dict[str, Any]) -> Said:
    """What is wrong, in a sentence. `name`: the task's, or the executor type of executions of no task.

    Numbers that plain SQL has taken away are left out.
    """
    who = name or "?"
    seconds = _Seconds(details)
    match kind:
        case "failed":
            times, error = details.get("times", "?"), details.get("error")
            more = Said(" or more", " 次以上") if details.get("or_more") else Said("", " 次")
            often = "" if times == 1 else f" {times}{more.en} times in a row"
            return Said(
                f"{who} has failed{often}{f': {error}' if error else ''}",
                f"{who} 已连续失败 {times}{more.zh}{f'：{error}' if error else ''}",
            )
        case "late":
            late = seconds.of("late_seconds")
            return Said(f"{who} is late by {late.en}", f"{who} 已晚了 {late.zh}")
        case "slow":
            runs, usual = seconds.of("running_seconds"), seconds.of("p99_seconds")
            execution = details.get("execution_id", "?")
            return Said(
                f"{who} has been running for {runs.en} (execution {execution}); 99 of 100 runs take no more than"
                f" {usual.en}",
                f"{who} 已运行 {runs.zh}（执行 {execution}）；一百次中有 99 次不超过 {usual.zh}",
            )
        case "no_success":
            silent = seconds.of("silent_seconds")
            return Said(f"{who} has not succeeded for {silent.en}", f"{who} 已有 {silent.zh} 没有成功过")
        case "parked":
            number, reason = details.get("count", "?"), details.get("reason", "?")
            return Said(
                f"{number} executions of {who} are parked ({reason})",
                f"{who} 有 {number} 个执行被搁置（{reason}）",
            )
        case _:
            raise InvalidRequest.of("kind", Said(f"{kind!r} is no kind of rule", f"{kind!r} 不是一种规则"))


class _Seconds:
    def __init__(self, details: dict[str, Any]) -> None:
        self._details = details

    def of(self, name: str) -> Said:
        value = self._details.get(name)
        if not isinstance(value, int | float):
            return Said("?", "?")
        whole = round(value) if value >= 10 else round(value, 1)
        return Said(say_duration(whole), say_duration(whole, "zh"))


def compose(
    *,
    notice: Notice,
    severity: str,
    said: Said,
    rule_name: str,
    opened_at: datetime,
    now: datetime,
    language: Language,
) -> AlertText:
    """The message to a channel. `now`: when it is sent, or when the alert was over."""
    severe = _SEVERITIES.get(severity, Said(severity, severity)).in_(language)
    lasted = say_duration(round((now - opened_at).total_seconds()), language)
    since = opened_at.isoformat(sep=" ", timespec="seconds")
    what = said.in_(language)
    if language == "zh":
        title = {
            Notice.OPENED: f"[{severe}] {what}",
            Notice.REMINDER: f"[{severe}] 仍未恢复：{what}",
            Notice.RESOLVED: f"[已恢复] {what}",
            Notice.TEST: "[测试] ContentHub 告警渠道可用",
        }[notice]
        body = {
            Notice.OPENED: f"{what}。\n规则：{rule_name}；开始于 {since}",
            Notice.REMINDER: f"{what}。\n规则：{rule_name}；开始于 {since}，已持续 {lasted}",
            Notice.RESOLVED: f"已恢复：{what}。\n规则：{rule_name}；开始于 {since}，持续了 {lasted}",
            Notice.TEST: "这是一条测试消息，没有任何问题。",
        }[notice]
        return AlertText(title, body)
    title = {
        Notice.OPENED: f"[{severe}] {what}",
        Notice.REMINDER: f"[{severe}] still: {what}",
        Notice.RESOLVED: f"[over] {what}",
        Notice.TEST: "[test] This ContentHub alert channel works",
    }[notice]
    body = {
        Notice.OPENED: f"{what}.\nRule: {rule_name}; since {since}",
        Notice.REMINDER: f"{what}.\nRule: {rule_name}; since {since}, for {lasted}",
        Notice.RESOLVED: f"It is over: {what}.\nRule: {rule_name}; since {since}, it lasted {lasted}",
        Notice.TEST: "This is a test; nothing is wrong.",
    }[notice]
    return AlertText(title, body)
