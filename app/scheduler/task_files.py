"""Tasks as a YAML file: write, read, and bring the stored tasks in line with one.

A file is a list of tasks, each with the fields of `TaskDefinition`; what has its default value is left out, and a
cron schedule is just its expression. Of YAML only what JSON has is read: numbers, true, false and null; all else
is text, so that `no` stays the word and `2030-01-01` stays what was written (YAML 1.1 makes False and a date of
them). Aliases, duplicate keys and keys that are no text are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from sqlalchemy import Engine

from app.core.clock import Clock
from app.core.errors import FieldError, InvalidRequest, NotFound, SchedulerError
from app.core.redaction import redact, restore
from app.models.scheduled_task import ScheduledTask
from app.scheduler.definitions import TaskDefinition
from app.scheduler.schedules import AtSchedule, CronSchedule, to_utc
from app.scheduler.tasks import TaskStore, located, one_transaction
from app.services.scheduler_service import SchedulerService

_PAGE = 500
_LINE_SEPARATORS = frozenset("\x85\u2028\u2029")
_ABSENT = object()

_RESOLVERS = {
    "null": (re.compile(r"^(?:~|null|)$"), ["~", "n", ""]),
    "bool": (re.compile(r"^(?:true|false)$"), ["t", "f"]),
    "int": (re.compile(r"^-?(?:0|[1-9][0-9]*)$"), list("-0123456789")),
    "float": (
        re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"),
        list("-0123456789"),
    ),
}
"""Plain scalars that are no text, as in JSON: tag, form, first characters."""


# -------------------------------------------------------------------- write


def write_tasks(definitions: Iterable[TaskDefinition]) -> str:
    """The tasks as a YAML file, in order of name. Secrets in params read `******`."""
    entries = [entry_of(definition) for definition in sorted(definitions, key=lambda item: item.name)]
    return yaml.dump(entries, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110)


def entry_of(definition: TaskDefinition) -> dict[str, Any]:
    """One task as a file has it. Its zone is always written: what a file means must not depend on a setting."""
    entry = _plain(definition)
    if "params" in entry:
        entry["params"] = redact(entry["params"])
    return entry


def _plain(definition: TaskDefinition) -> dict[str, Any]:
    """The fields that differ from their defaults, in plain values, and the zone."""
    dumped = definition.model_dump(mode="json", exclude_defaults=True)
    dumped["timezone"] = definition.timezone
    match definition.schedule:
        case None:
            pass
        case CronSchedule(expression=expression):
            dumped["schedule"] = expression
        case AtSchedule(at=at):
            dumped["schedule"] = {
                "type": "at",
                "at": to_utc(at, definition.timezone, field="schedule.at").isoformat(),
            }
        case interval:
            seconds = interval.seconds
            dumped["schedule"] = {
                "type": "interval",
                "seconds": int(seconds) if seconds.is_integer() else seconds,
            }
    return {field: dumped[field] for field in TaskDefinition.model_fields if field in dumped}


class _Dumper(yaml.SafeDumper):
    """Quotes what readers of YAML 1.1 or 1.2 might take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # PyYAML writes these three as they are, and reads them as the end of a line.
        style = '"' if _LINE_SEPARATORS.intersection(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


# -------------------------------------------------------------------- read


def read_tasks(text: str, *, default_timezone: str = "UTC") -> list[TaskDefinition]:
    """The tasks of a YAML file; `default_timezone` is the zone of those that name none.

    Raises:
        InvalidRequest: `errors` names every wrong task and field, or the line that is no YAML.
    """
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise InvalidRequest.of("file", f"{where}{error.problem}", "yaml") from None
    except (yaml.YAMLError, RecursionError) as error:
        sentence = "is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InvalidRequest.of("file", sentence, "yaml") from None
    if not isinstance(content, list):
        raise InvalidRequest.of("file", "must be a list of tasks (`- name: …`); for none write []", "no_list")
    return _definitions(content, default_timezone)


def _definitions(entries: list[Any], default_timezone: str) -> list[TaskDefinition]:
    definitions: dict[str, TaskDefinition] = {}
    errors: list[FieldError] = []
    for position, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            errors.append(FieldError(f"tasks[#{position}]", "must be a mapping that begins with `name:`"))
            continue
        try:
            definition = TaskDefinition.parse({"timezone": default_timezone, **entry})
        except InvalidRequest as error:
            name = entry.get("name")
            errors += located(name if isinstance(name, str) and name else f"#{position}", error)
            continue
        if definition.name in definitions:
            errors.append(FieldError(f"tasks[{definition.name}].name", "is in the file twice", "duplicate"))
        definitions[definition.name] = definition
    if errors:
        raise InvalidRequest(errors)
    return list(definitions.values())


class _Loader(yaml.SafeLoader):
    """See the module."""

    # A fresh table: SafeLoader's knows dates, octal and sexagesimal numbers, yes and no, and merge keys.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are refused; write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the key {key!r} is no text; put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = f"the key {key!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _kind, (_form, _first) in _RESOLVERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _form, _first)


# -------------------------------------------------------------------- compare


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field, by its dotted path, before and after; secrets are masked, None stands for "not there"."""

    field: str
    before: Any
    after: Any

    def as_dict(self) -> dict[str, Any]:
        return {"field": self.field, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class TaskChange:
    """What becomes of one task."""

    task: str
    action: Literal["create", "update", "delete"]
    fields: tuple[FieldChange, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"task": self.task, "action": self.action, "fields": [change.as_dict() for change in self.fields]}


def field_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """The fields in which two tasks, in plain values, differ. A changed secret is reported, masked."""
    return tuple(_differences(before, after, redact(before), redact(after), ()))


def _differences(
    before: Any, after: Any, shown_before: Any, shown_after: Any, path: tuple[str, ...]
) -> Iterator[FieldChange]:
    if isinstance(shown_before, dict) and isinstance(shown_after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(
                before.get(key, _ABSENT),
                after.get(key, _ABSENT),
                shown_before.get(key),
                shown_after.get(key),
                (*path, key),
            )
    elif not _same(before, after):
        yield FieldChange(".".join(path), shown_before, shown_after)


def _same(before: Any, after: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(value, after[key]) for key, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    return isinstance(before, bool) == isinstance(after, bool) and bool(before == after)


# -------------------------------------------------------------------- import


def all_tasks(tasks: TaskStore) -> Iterator[ScheduledTask]:
    """Every stored task, in order of id, read page by page."""
    after_id = 0
    while page := tasks.page(after_id=after_id, limit=_PAGE):
        yield from page
        after_id = page[-1].id


def stored_definitions(tasks: TaskStore) -> Iterator[TaskDefinition]:
    """The definitions of all stored tasks.

    Raises:
        InvalidRequest: plain SQL left a task that makes no definition; task and field are named.
    """
    for task in all_tasks(tasks):
        try:
            yield TaskDefinition.of(task)
        except InvalidRequest as error:
            raise InvalidRequest(located(task.name, error)) from error


def import_tasks(
    definitions: Iterable[TaskDefinition],
    *,
    database: Engine,
    service: SchedulerService,
    clock: Clock,
    prune: bool = False,
    write: bool = True,
) -> list[TaskChange]:
    """Create and update tasks by name, so that the stored ones are as the file has them; returns what changed.

    It is one transaction: where one task is refused, none is stored. `write=False` does everything and takes it
    back, so it refuses what the import would refuse. A masked secret keeps the stored value. `prune` deletes what
    the file does not name, except what the code declares, which the next start would make again. A running clock
    sees the new schedules within a second.

    Raises:
        InvalidRequest: `errors` names every wrong task and field; nothing is stored.
    """
    with one_transaction(database, service, clock) as (tasks, connection):
        wanted = {definition.name: definition for definition in definitions}
        changes, errors = _collect(wanted.values(), lambda definition: _bring(definition, tasks))
        if prune:
            changes += _prune(tasks, wanted)
        if errors:
            raise InvalidRequest(errors)
        if not write:
            connection.rollback()
    return changes


def _collect(
    definitions: Iterable[TaskDefinition], bring: Callable[[TaskDefinition], TaskChange | None]
) -> tuple[list[TaskChange], list[FieldError]]:
    changes: list[TaskChange] = []
    errors: list[FieldError] = []
    for definition in definitions:
        try:
            change = bring(definition)
        except SchedulerError as error:
            errors += located(definition.name, error)
        else:
            changes += [change] if change is not None else []
    return changes, errors


def _bring(definition: TaskDefinition, tasks: TaskStore) -> TaskChange | None:
    """Create the task, or change the fields in which it differs. None: it is as it should be."""
    after = _plain(definition)
    stored = _find(tasks, definition.name)
    if stored is None:
        tasks.create(definition, by="import")
        return TaskChange(definition.name, "create", field_changes({}, after))
    before = _plain_or_nothing(stored)
    if "params" in after:
        after["params"] = restore(after["params"], stored.params)
    fields = field_changes(before, after)
    if not fields:
        return None
    # Only what differs: a change of the schedule arms the task anew, and that must not come with a new text.
    names = {change.field.partition(".")[0] for change in fields}
    tasks.update(
        stored.id, {name: getattr(definition, name) for name in names} | _params(names, after), by="import"
    )
    return TaskChange(definition.name, "update", fields)


def _params(names: set[str], after: Mapping[str, Any]) -> dict[str, Any]:
    return {"params": after.get("params", {})} if "params" in names else {}


def _find(tasks: TaskStore, name: str) -> ScheduledTask | None:
    try:
        found = tasks.find(name)
    except NotFound:
        return None
    return found if found.name == name else None  # it may have been found by its id


def _plain_or_nothing(task: ScheduledTask) -> dict[str, Any]:
    """What is stored; nothing if it makes no definition, so that the file mends every field of it."""
    try:
        return _plain(TaskDefinition.of(task))
    except InvalidRequest:
        return {}


def _prune(tasks: TaskStore, wanted: Mapping[str, TaskDefinition]) -> list[TaskChange]:
    changes = []
    for task in list(all_tasks(tasks)):
        declared_in_code = task.declared is not None and not task.declaration_missing
        if task.name not in wanted and not declared_in_code:
            changes.append(TaskChange(task.name, "delete", field_changes(_plain_or_nothing(task), {})))
            tasks.delete(task.id, by="import")
    return changes
