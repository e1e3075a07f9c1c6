"""`contenthub alert`: what is wrong, who watches (`rule`), and where it is said (`channel`)."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import arguments, output
from app.cli.session import opened
from app.core.errors import NotFound
from app.core.language import Language

if TYPE_CHECKING:
    from app.models.alerting import AlertChannel, AlertRule
    from app.scheduler.runtime import Runtime

app = typer.Typer(help="Alerts: what is wrong, who watches, and where it is said.", no_args_is_help=True)
rule_app = typer.Typer(help="The rules: what to watch for.", no_args_is_help=True)
channel_app = typer.Typer(help="The channels: where to say it.", no_args_is_help=True)
app.add_typer(rule_app, name="rule")
app.add_typer(channel_app, name="channel")

RuleName = Annotated[str, typer.Argument(metavar="RULE", help="The rule's name, or its id.")]
ChannelName = Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel's name, or its id.")]
_LEVELS = {"critical": "fail", "warning": "warn"}


# -------------------------------------------------------------------- alerts


@app.command("list")
def list_alerts(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 50,
    language: Annotated[Language, typer.Option("--language", help="Of the sentences: en or zh.")] = "en",
    as_json: output.JsonFlag = False,
) -> None:
    """List the alerts that are open, newest first."""
    with opened() as runtime:
        from app.api.alerts import AlertAnswer  # with FastAPI, see session.py
        from app.scheduler.alerting.store import Openness

        openness = Openness.ALL if everything else Openness.OPEN
        found = [
            AlertAnswer.of(alert, language) for alert in runtime.alerts.alerts(openness=openness, limit=limit)
        ]
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json([alert.model_dump() for alert in found])
    elif found:
        output.show_table(
            ("id", "severity", "what", "since", "over", "acknowledged by"),
            [
                (
                    str(alert.id),
                    output.state(_LEVELS.get(alert.severity)),
                    alert.sentence,
                    output.moment(alert.opened_at, zone),
                    output.moment(alert.resolved_at, zone),
                    alert.acknowledged_by or "",
                )
                for alert in found
            ],
        )
    else:
        output.say("No alerts." if everything else "No open alerts.", style="green")


@app.command()
def acknowledge(
    alert_id: Annotated[int, typer.Argument(min=1, help="Id of the alert.")], as_json: output.JsonFlag = False
) -> None:
    """Say that somebody knows: no reminders from now on."""
    with opened() as runtime:
        from app.api.alerts import AlertAnswer  # as above

        alert = AlertAnswer.of(runtime.alerts.acknowledge(alert_id, "cli"), "en")
    if as_json:
        output.show_json(alert.model_dump())
    else:
        output.say(f"Acknowledged: {alert.sentence}.", style="green")


# -------------------------------------------------------------------- rules


@rule_app.command("list")
def list_rules(as_json: output.JsonFlag = False) -> None:
    """List the rules."""
    with opened() as runtime:
        rules = runtime.alerts.rules()
        names = {channel.id: channel.name for channel in runtime.alerts.channels()}
        channels = runtime.alerts.channels_of([rule.id for rule in rules])
        watched = {rule.id: _task_name(runtime, rule.task_id) for rule in rules}
        records = [_rule_record(rule, channels[rule.id]) for rule in rules]
        zone = runtime.settings.scheduler_timezone
    if as_json:
        output.show_json(records)
    elif rules:
        output.show_table(
            ("id", "name", "condition", "task", "severity", "channels", "quiet", "silenced until"),
            [
                (
                    str(rule.id),
                    rule.name if rule.is_active else f"{rule.name} (paused)",
                    output.plain({"type": rule.kind, **rule.condition}),
                    watched[rule.id],
                    rule.severity,
                    ", ".join(names[channel] for channel in channels[rule.id]) or "none",
                    _quiet(rule),
                    output.moment(rule.silenced_until, zone),
                )
                for rule in rules
            ],
        )
    else:
        output.say("No rules. Make one with `contenthub alert rule create`.")


def _task_name(runtime: Runtime, task_id: int | None) -> str:
    if task_id is None:
        return "all"
    try:
        return runtime.tasks.get(task_id).name
    except NotFound:  # a rule outlives its task
        return f"{task_id} (deleted)"


def _quiet(rule: AlertRule) -> str:
    return f"{rule.quiet_from}-{rule.quiet_until} {rule.quiet_timezone}" if rule.quiet_from else ""


@rule_app.command("create")
def create_rule(
    name: Annotated[str, typer.Argument(help="What to call it; unique.")],
    condition: Annotated[
        str,
        typer.Option(
            "--condition",
            metavar="JSON",
            help='Such as {"type": "failed", "times": 3}; types: failed, late, slow, no_success, parked.',
        ),
    ],
    task: Annotated[str | None, typer.Option("--task", help="Only this task; by default all.")] = None,
    channels: Annotated[
        list[str] | None, typer.Option("--channel", help="Where to say it; may be given more than once.")
    ] = None,
    severity: Annotated[
        str, typer.Option("--severity", help="warning, or critical: told in quiet hours too.")
    ] = "warning",
    remind: Annotated[str | None, typer.Option("--remind", help="Say it again after so long, such as 4h.")] = None,
    quiet: Annotated[str | None, typer.Option("--quiet", metavar="HH:MM-HH:MM", help="Quiet hours.")] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="Zone of the quiet hours; by default SCHEDULER_TIMEZONE.")
    ] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Make a rule."""
    values: dict[str, Any] = {
        "name": name,
        "condition": arguments.json_object(condition),
        "severity": severity,
        "remind_seconds": arguments.duration(remind) if remind is not None else None,
    }
    with opened() as runtime:
        values["channel_ids"] = [runtime.alerts.find_channel(channel).id for channel in channels or ()]
        if task is not None:
            values["task_id"] = runtime.tasks.find(task).id
        if quiet is not None:
            start, _, end = quiet.partition("-")
            zone = timezone or runtime.settings.scheduler_timezone
            values["quiet_hours"] = {"start": start.strip(), "end": end.strip(), "timezone": zone}
        rule = runtime.alerts.create_rule(values)
        _show_rule(runtime, rule, f"Made rule {rule.id} ({rule.name}).", as_json=as_json)


@rule_app.command("pause")
def pause_rule(name: RuleName, as_json: output.JsonFlag = False) -> None:
    """Stop watching, and close the rule's alerts."""
    with opened() as runtime:
        rule = runtime.alerts.update_rule(runtime.alerts.find_rule(name).id, {"is_active": False})
        _show_rule(runtime, rule, f"Paused rule {rule.id} ({rule.name}).", as_json=as_json)


@rule_app.command("resume")
def resume_rule(name: RuleName, as_json: output.JsonFlag = False) -> None:
    """Watch again."""
    with opened() as runtime:
        rule = runtime.alerts.update_rule(runtime.alerts.find_rule(name).id, {"is_active": True})
        _show_rule(runtime, rule, f"Resumed rule {rule.id} ({rule.name}).", as_json=as_json)


@rule_app.command("silence")
def silence_rule(
    name: RuleName,
    duration: Annotated[str, typer.Option("--for", help="How long, such as 2h; 0 speaks again.")],
    as_json: output.JsonFlag = False,
) -> None:
    """Hold the rule's notices for a while."""
    seconds = arguments.duration(duration)
    with opened() as runtime:
        until = runtime.clock.now() + timedelta(seconds=seconds) if seconds else None
        rule = runtime.alerts.silence_rule(runtime.alerts.find_rule(name).id, until)
        said = output.moment(until, runtime.settings.scheduler_timezone) if until else ""
        sentence = f"Rule {rule.id} ({rule.name}) " + (f"is silent until {said}." if until else "speaks again.")
        _show_rule(runtime, rule, sentence, as_json=as_json)


@rule_app.command("delete")
def delete_rule(name: RuleName, as_json: output.JsonFlag = False) -> None:
    """Delete a rule and close its alerts."""
    with opened() as runtime:
        rule = runtime.alerts.find_rule(name)
        runtime.alerts.delete_rule(rule.id)
    _show_deleted("rule", rule.id, rule.name, as_json=as_json)


def _show_rule(runtime: Runtime, rule: AlertRule, sentence: str, *, as_json: bool) -> None:
    if as_json:
        output.show_json(_rule_record(rule, runtime.alerts.channels_of([rule.id])[rule.id]))
    else:
        output.say(sentence, style="green")


def _rule_record(rule: AlertRule, channel_ids: list[int]) -> dict[str, Any]:
    from app.api.alerts import AlertRuleAnswer  # as above

    return AlertRuleAnswer.of(rule, channel_ids).model_dump()


# -------------------------------------------------------------------- channels


@channel_app.command("list")
def list_channels(as_json: output.JsonFlag = False) -> None:
    """List the channels, without their URLs."""
    with opened() as runtime:
        from app.scheduler.alerting.apprise_channel import masked  # with SQLAlchemy, see session.py

        channels = runtime.alerts.channels()
        if as_json:
            output.show_json([_channel_record(channel) for channel in channels])
        elif channels:
            output.show_table(
                ("id", "name", "receiver", "language", "active"),
                [
                    (
                        str(channel.id),
                        channel.name,
                        masked(channel.url),
                        channel.language,
                        "yes" if channel.is_active else "no",
                    )
                    for channel in channels
                ],
            )
        else:
            output.say("No channels. Make one with `contenthub alert channel create`.")


@channel_app.command("create")
def create_channel(
    name: Annotated[str, typer.Argument(help="What to call it; unique.")],
    url: Annotated[
        str | None,
        typer.Option("--url", help="apprise URL; `-` reads it from stdin. By default it is asked for, unseen."),
    ] = None,
    language: Annotated[Language, typer.Option("--language", help="Of the messages: en or zh.")] = "zh",
    as_json: output.JsonFlag = False,
) -> None:
    """Make a channel. Its URL is a secret: given as an option it stays in the shell's history."""
    if url is None:
        url = typer.prompt("apprise URL", hide_input=True, err=True)
    elif url == "-":
        url = sys.stdin.readline()
    with opened() as runtime:
        channel = runtime.alerts.create_channel({"name": name, "url": url, "language": language})
        if as_json:
            output.show_json(_channel_record(channel))
        else:
            output.say(f"Made channel {channel.id} ({channel.name}).", style="green")
            output.note(f"Try it: contenthub alert channel test {channel.id}")


@channel_app.command("test")
def send_test(name: ChannelName, as_json: output.JsonFlag = False) -> None:
    """Send a test message; exit code 0: the receiver took it."""
    with opened(executors=True) as runtime:
        from app.cli.follow import carry_out  # with SQLAlchemy, see session.py

        channel = runtime.alerts.find_channel(name)
        carry_out(
            runtime,
            lambda: runtime.commands.test_channel(channel.id, by="cli"),
            detach=False,
            timeout=None,
            as_json=as_json,
        )


@channel_app.command("delete")
def delete_channel(name: ChannelName, as_json: output.JsonFlag = False) -> None:
    """Delete a channel; rules that used it go on without."""
    with opened() as runtime:
        channel = runtime.alerts.find_channel(name)
        runtime.alerts.delete_channel(channel.id)
    _show_deleted("channel", channel.id, channel.name, as_json=as_json)


def _channel_record(channel: AlertChannel) -> dict[str, Any]:
    from app.api.alerts import AlertChannelAnswer  # as above

    return AlertChannelAnswer.of(channel).model_dump()


def _show_deleted(kind: str, key: int, name: str, *, as_json: bool) -> None:
    if as_json:
        output.show_json({"id": key, "name": name, "deleted": True})
    else:
        output.say(f"Deleted {kind} {key} ({name}).", style="green")
