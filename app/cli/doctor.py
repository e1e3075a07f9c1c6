"""`contenthub doctor`: is everything here that the scheduler needs, and if not, what to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import typer

from app.cli import output
from app.cli.doctor_schedules import schedules
from app.cli.session import database_faults, load_settings
from app.core.clock import SystemClock
from app.core.config import Settings, misspelt_settings
from app.core.errors import InvalidRequest, SchedulerError
from app.core.logging import configure_logging

if TYPE_CHECKING:
    from app.scheduler.runtime import Runtime

Level = Literal["ok", "warn", "fail"]

_LOW_BYTES, _NO_BYTES = 1024**3, 64 * 1024**2
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""This code is younger: a clock before it is wrong."""
_CLOCK_TOLERANCE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `remedy` says what to do about a warning or a failure."""

    check: str
    level: Level
    message: str
    remedy: str | None = None


app = typer.Typer(help="Is everything here that the scheduler needs, and will the schedules hurt?")
app.command()(schedules)


@app.callback(invoke_without_command=True)
def doctor(context: typer.Context, as_json: output.JsonFlag = False) -> None:
    """Check settings, database, clock, time zones, executors and permissions; exit code 1 if anything fails."""
    if context.invoked_subcommand is not None:
        return
    configure_logging("ERROR")
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        output.show_json({"findings": [asdict(finding) for finding in findings]})
    raise typer.Exit(int(any(finding.level == "fail" for finding in findings)))


def _show(finding: Finding) -> None:
    level = output.state(finding.level)
    level.pad_right(5 - len(level.plain))
    output.out.print(level, output.printable(f"{finding.check}: {finding.message}"))
    if finding.remedy is not None:
        output.out.print(f"       → {output.printable(finding.remedy)}", style="bold")


def examine() -> Iterator[Finding]:
    """Every finding, in the order in which one needs the other: without settings there is no database."""
    try:
        settings = load_settings()
    except InvalidRequest as error:
        for item in error.errors:
            yield Finding(
                "settings", "fail", f"{item.field}: {item.message}", "mend it in the environment or .env"
            )
        return
    yield Finding("settings", "ok", f"read{' from .env' if Path('.env').is_file() else ''}, all valid")
    yield from _misspelt()
    yield from _generator(settings)
    yield from _clock()
    yield from _time_zones()
    yield from _folders(settings)
    yield _dashboard()
    yield from _with_database(settings)


# -------------------------------------------------------------------- without the database


def _misspelt() -> Iterator[Finding]:
    for name, setting in misspelt_settings().items():
        remedy = f"did you mean {setting}?" if setting else "see .env.example; unset it if it is not meant for us"
        yield Finding("settings", "warn", f"{name} is no setting, and nothing comes of it", remedy)


def _generator(settings: Settings) -> Iterator[Finding]:
    """What `content_generation` needs where the params name nothing."""
    if settings.generator == "command":
        if not settings.generator_command:
            yield Finding("generator", "fail", "GENERATOR_COMMAND is not set", "write its argv, a JSON list")
        elif shutil.which(program := settings.generator_command[0]) is None:
            yield Finding("generator", "fail", f"{program} cannot be run", "install it, or mend GENERATOR_COMMAND")
    elif settings.generator == "feed" and settings.generator_feed is not None:
        from app.executors.generators.feed import FeedSource  # with httpx, see session.py

        feed = settings.generator_feed
        if not FeedSource(feed, trusted=True).is_web and not Path(feed).is_file():
            yield Finding("generator", "fail", f"there is no file {feed}", "mend GENERATOR_FEED")


def _clock() -> Iterator[Finding]:
    now = SystemClock().now()
    if now < _EARLIEST:
        yield Finding("clock", "fail", f"it says {now:%Y-%m-%d %H:%M:%S} UTC", "set the clock, for example by NTP")
    else:
        yield Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _time_zones() -> Iterator[Finding]:
    try:
        ZoneInfo("Asia/Shanghai")
    except (ZoneInfoNotFoundError, OSError) as error:
        yield Finding("time zones", "fail", str(error), "install the package tzdata")
        return
    with suppress(PackageNotFoundError):
        yield Finding("time zones", "ok", f"{len(available_timezones())} known (tzdata {version('tzdata')})")


def _folders(settings: Settings) -> Iterator[Finding]:
    folders = {"publish directory": settings.publish_directory}
    if (file := _sqlite_file(settings)) is not None:
        folders["data directory"] = file.parent
    for name, folder in folders.items():
        ground = _nearest_existing(folder)
        if not _can_be_written(ground):
            yield Finding(
                name, "fail", f"{folder} cannot be written", f"give this user the right to write to {ground}"
            )
            continue
        yield Finding(name, "ok", f"{folder} can be written")
        free = shutil.disk_usage(ground).free
        if free < _LOW_BYTES:
            level: Level = "fail" if free < _NO_BYTES else "warn"
            yield Finding(
                "disk space", level, f"{free / 1024**2:.0f} MiB are left for {folder}", "make room on the disk"
            )


def _can_be_written(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:  # also where the rights would allow it, as in /proc
        return False


def _dashboard() -> Finding:
    from app.dashboard.pages import HOW_TO_BUILD, is_built  # with FastAPI, see session.py

    if is_built():
        return Finding("dashboard", "ok", "built; served at /scheduler/")
    return Finding("dashboard", "warn", "not built; the API works without it", HOW_TO_BUILD)


def _sqlite_file(settings: Settings) -> Path | None:
    if not settings.is_sqlite:
        return None
    _, _, path = settings.database_url.partition(":///")
    return Path(path.partition("?")[0] or ".")


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


# -------------------------------------------------------------------- with the database


def _with_database(settings: Settings) -> Iterator[Finding]:
    try:
        with database_faults():
            from app.db.schema import current_revision, head_revision, is_known  # with SQLAlchemy, see session.py
            from app.factory import own_runtime

            runtime = own_runtime(settings, role="cli")
            try:
                yield from _declarations(runtime)
                file = _sqlite_file(settings)
                if file is not None and not file.exists():
                    # Looking must not make it: connecting to a SQLite file creates it.
                    yield Finding(
                        "database", "warn", f"{file} does not exist yet", "run `contenthub db upgrade`, or serve"
                    )
                    return
                yield _reachable(runtime)
                found, wanted = current_revision(runtime.engine), head_revision()
                if found != wanted:
                    yield Finding(
                        "migrations",
                        "fail",
                        f"the schema is at {found or 'nothing'}, this version needs {wanted}",
                        "run `contenthub db upgrade`"
                        if is_known(found)
                        else "install the newer version that made it",
                    )
                    return
                yield Finding("migrations", "ok", f"at {found}")
                for check in _CHECKS:
                    yield from check(runtime)
            finally:
                runtime.close()
    except SchedulerError as error:
        yield Finding(
            "database", "fail", str(error), "check DATABASE_URL, the server, and the rights of this user"
        )


def _declarations(runtime: Runtime) -> Iterator[Finding]:
    """Registers the executors too, which needs no database: a wrong declaration is found before the first boot."""
    from app.factory import register_own_executors  # with FastAPI, see session.py

    try:
        register_own_executors()
        runtime.check_declarations()
    except SchedulerError as error:
        sentences = [f"{item.field}: {item.message}" for item in error.errors] or [str(error)]
        for sentence in sentences:
            yield Finding("declarations", "fail", sentence, "mend it in app/factory.py")
    else:
        yield Finding("declarations", "ok", "the scheduler can start with what the code declares")


def _reachable(runtime: Runtime) -> Finding:
    from app.db.database import begin_write  # with SQLAlchemy, see session.py

    with runtime.engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            read_only = connection.exec_driver_sql("SHOW transaction_read_only").scalar()
            if read_only == "on":
                return Finding("database", "fail", "it can only be read", "connect to the primary server")
            return Finding("database", "ok", f"{connection.dialect.name}, can be written")
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        begin_write(connection)
        # Takes the write lock and changes a page, which a read-only file or disk refuses; then takes it back.
        connection.exec_driver_sql("CREATE TABLE contenthub_doctor (id INTEGER)")
        connection.rollback()
    if mode != "wal":
        return Finding(
            "database", "warn", f"SQLite in journal mode {mode}", "put it on a local disk: WAL needs shared memory"
        )
    return Finding("database", "ok", "SQLite in WAL mode, can be written")


def _stored_times(runtime: Runtime) -> Iterator[Finding]:
    newest = max((execution.created_at for execution in runtime.history.page(limit=1)), default=None)
    if newest is not None and newest > runtime.clock.now() + _CLOCK_TOLERANCE:
        yield Finding(
            "clock",
            "fail",
            f"the newest execution was recorded in the future, at {newest:%Y-%m-%d %H:%M:%S} UTC",
            "set the clock of this machine, or of the one that recorded it",
        )


def _executors(runtime: Runtime) -> Iterator[Finding]:
    from sqlalchemy import select  # see session.py

    from app.models.scheduled_task import ScheduledTask

    registered = runtime.service.get_registered_executors()
    with runtime.sessions() as session:
        types = set(session.scalars(select(ScheduledTask.task_type).distinct()))
    unknown = sorted(types - registered.keys())
    if unknown:
        yield Finding(
            "executors",
            "fail",
            f"stored tasks need {', '.join(unknown)}; registered: {', '.join(sorted(registered))}",
            "register the executor in app/factory.py, or change or delete these tasks",
        )
    else:
        yield Finding("executors", "ok", ", ".join(sorted(registered)))


def _schedules(runtime: Runtime) -> Iterator[Finding]:
    from sqlalchemy import select  # see session.py

    from app.models.scheduled_task import ScheduledTask
    from app.scheduler.schedules import from_columns, zone_of
    from app.scheduler.shelf import left_to_others

    kind, expression, zone = ScheduledTask.schedule_type, ScheduledTask.schedule_expression, ScheduledTask.timezone
    shelved = select(ScheduledTask.name, ScheduledTask.schedule_error).where(
        ScheduledTask.is_active, ScheduledTask.schedule_error.is_not(None)
    )
    with runtime.sessions() as session:
        stored = session.execute(select(kind, expression, zone).where(kind.is_not(None)).distinct()).all()
        on_shelf = session.execute(shelved.order_by(ScheduledTask.id)).all()
        query = left_to_others(session.get_bind().dialect)
        left = [] if query is None else session.execute(query).all()
    wrong = []
    for row in stored:
        try:
            zone_of(row.timezone)
            from_columns(row.schedule_type, row.schedule_expression)
        except InvalidRequest as error:
            wrong.append(f"{row.schedule_expression!r} in {row.timezone}: {error}")
    wrong += [f"task {row.name} does not fire: {row.schedule_error}" for row in on_shelf]
    if left:
        yield Finding(
            "schedules",
            "warn",
            f"the calendars of {len(left)} tasks cannot be judged here: other nodes must fire them",
            "install contenthub-scheduler[calendars]",
        )
    for sentence in wrong:
        yield Finding(
            "schedules", "fail", sentence, "mend the tasks that have it; `contenthub task list` marks them"
        )
    if not wrong:
        yield Finding("schedules", "ok", f"{len(stored)} different ones, all readable")


def _nodes(runtime: Runtime) -> Iterator[Finding]:
    from app.cli.follow import listening_nodes  # with SQLAlchemy, see session.py

    listening = listening_nodes(runtime)
    if listening:
        yield Finding("nodes", "ok", f"{len(listening)} listening")
    else:
        yield Finding("nodes", "warn", "no server is running: schedules do not fire", "run `contenthub serve`")


def _tokens(runtime: Runtime) -> Iterator[Finding]:
    from app.cli.serve import is_loopback
    from app.models.api_token import any_token_exists  # with SQLAlchemy, see session.py

    with runtime.sessions() as session:
        has_tokens = any_token_exists(session)
    if has_tokens:
        yield Finding("tokens", "ok", "the API asks for one")
    else:
        level: Level = "ok" if is_loopback(runtime.settings.host) else "fail"
        yield Finding(
            "tokens",
            level,
            "there are none: the API answers only on this machine",
            None if level == "ok" else "run `contenthub token create NAME --role admin`",
        )


_CHECKS: tuple[Callable[[Runtime], Iterator[Finding]], ...] = (
    _stored_times,
    _executors,
    _schedules,
    _nodes,
    _tokens,
)
