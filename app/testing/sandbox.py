"""The sandbox: a scheduler of one's own, in which a year passes when the test says so."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

import app.models as _all_tables  # noqa: F401 - completes the metadata
from app.core.config import Settings
from app.core.errors import InvalidRequest
from app.db.database import Base, make_engine
from app.models.scheduled_task import ScheduledTask
from app.models.task_attempt import ExecutionLog, TaskAttempt
from app.models.task_execution import Execution
from app.scheduler.steps import StepRow
from app.services.scheduler_service import SchedulerService, TaskExecutor
from app.testing.clock import START, VirtualClock
from app.testing.runtime import SandboxRuntime
from app.testing.virtual_loop import VirtualLoop

_ALL = 1_000_000


class Done:
    """Something that has happened already. Awaiting it is allowed and changes nothing, so that tests with and
    without an event loop read alike."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class Sandbox:
    """A scheduler under a virtual clock, on a database of its own; nothing in it waits, and nothing is random.

    `service` is what an application has in `scheduler_service`; `sessions` makes Sessions on the database. Both
    may be handed to the code under test, and be used from the test's own event loop.
    """

    def __init__(self, settings: Settings, *, start: datetime, seed: int) -> None:
        self.clock = VirtualClock(start)
        self.engine = _make_engine(settings)
        self.sessions: sessionmaker[Session] = sessionmaker(self.engine, expire_on_commit=False)
        Base.metadata.create_all(self.engine)
        self.service = SchedulerService()
        self._loop = VirtualLoop(self.clock)
        self._runtime = SandboxRuntime(
            self.service,
            settings=settings,
            sessions=self.sessions,
            clock=self.clock,
            loop=self._loop,
            seed=seed,
        )
        self.service.attach(self._runtime)
        self._is_down = False

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, *, start: datetime = START, seed: int = 0, **settings: Any) -> Iterator[Sandbox]:
        """A sandbox with its database in `folder`, closed at the end.

        `start` is the first moment of its time (aware), `seed` that of the jitter of retries; `settings` are
        fields of `Settings`. The environment and `.env` have no say in it.

        Raises:
            TypeError: an option is unknown, or `start` is no aware datetime.
        """
        unknown = settings.keys() - Settings.model_fields.keys()
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: give start, seed and fields of Settings")
        if getattr(start, "tzinfo", None) is None:
            raise TypeError(f"start is a datetime with a time zone, not {start!r}")
        defaults = {"database_url": f"sqlite:///{folder / 'sandbox.db'}", "sqlite_synchronous": "NORMAL"}
        box = cls(_OwnSettings(**(defaults | settings)), start=start, seed=seed)
        try:
            yield box
        finally:
            box.close()

    # ------------------------------------------------------------ what is there

    @property
    def now(self) -> datetime:
        """The present of the sandbox, in UTC."""
        return self.clock.now()

    def register(self, *executors: TaskExecutor) -> None:
        """Register executors; what was parked for want of one runs when time goes on.

        Raises:
            InvalidRequest: one of them is no executor.
        """
        for executor in executors:
            self.service.register_executor(executor)

    def define_task(
        self, name: str, task_type: str, *, cron: str | None = None, **definition: Any
    ) -> ScheduledTask:
        """Store a task, armed from now on. Fields as in `TaskDefinition`; `cron` is short for a cron `schedule`.

        Raises:
            InvalidRequest, ExecutorNotFound, InvalidParameters, Conflict: as the API refuses it.
        """
        if cron is not None:
            definition["schedule"] = {"type": "cron", "expression": cron}
        return self._runtime.tasks.create(
            self._runtime.definition({"name": name, "task_type": task_type, **definition})
        )

    def task(self, name: str) -> ScheduledTask:
        """The task of that name as it is stored now. Raises NotFound."""
        return self._runtime.tasks.find(name)

    def pause(self, task: ScheduledTask | str) -> None:
        """Stop firing a task, as an operator does."""
        self._runtime.tasks.pause(self._id_of(task))

    def resume(self, task: ScheduledTask | str) -> None:
        """Fire it again from now on."""
        self._runtime.tasks.resume(self._id_of(task))

    def enqueue(self, task_type: str, params: dict[str, Any] | None = None, **request: Any) -> Execution:
        """Record a request, as `SchedulerService.enqueue()` does; it runs when time goes on."""
        return self._loop.complete(self.service.enqueue(task_type, params, **request))

    def run_now(self, task: ScheduledTask | str, params: dict[str, Any] | None = None) -> Execution:
        """Fire a task by hand; it runs when time goes on."""
        return self._loop.complete(self.service.run_now(self._id_of(task), params))

    def cancel(self, execution: Execution) -> Execution:
        """Cancel an execution and let its code end; returns it as it is then."""
        self._loop.complete(self.service.cancel(execution.id))
        self._settle()
        return self.read(execution)

    def signal(
        self, execution: Execution | int, name: str, payload: Any = None, *, signalled_by: str | None = None
    ) -> None:
        """Signal to an execution, as `SchedulerService.signal()` does; it goes on when time goes on."""
        execution_id = execution if isinstance(execution, int) else execution.id
        self._loop.complete(self.service.signal(execution_id, name, payload, signalled_by=signalled_by))

    def retry(self, execution: Execution) -> Execution:
        """Put an execution that failed or was cancelled back in line; it goes on when time does."""
        return self._loop.complete(self.service.retry(execution.id))

    # ------------------------------------------------------------ time

    def advance(
        self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0, weeks: float = 0
    ) -> Done:
        """Let time pass: all that is due in it fires, runs, is retried, times out, in its order.

        It has happened when the call returns; in an async test it may be awaited. Without arguments, what is due
        now happens.

        Raises:
            InvalidRequest: time would go back.
        """
        return self.advance_to(
            self.now + timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        )

    def advance_to(self, moment: datetime) -> Done:
        """The same, up to and including `moment` (aware)."""
        ahead = (moment - self.now).total_seconds()
        if ahead < 0:
            raise InvalidRequest.of("moment", f"it is {self.now} already; time only moves on")
        if not self._is_down:
            self._runtime.start()
        self._loop.run_until(self._loop.time() + ahead)
        self._settle()
        return Done()

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Shut the scheduler down, as a deployment does: running attempts get the grace, then are handed back.

        Time may pass; nothing fires until `start()`.
        """
        self._is_down = True
        self._loop.complete(self.service.drain(grace_seconds))
        self._settle()

    def crash(self) -> int:
        """Kill the scheduler in the middle of what it does; returns how many executions it was running.

        What they wrote is rolled back. They run again, as their retry policies say, after `start()`.
        """
        self._is_down = True
        lost = self._runtime.crash()
        self._settle()
        return lost

    def start(self) -> None:
        """Start it again after `stop()` or `crash()`. The first start is made by `advance()`."""
        self._is_down = False
        self._runtime.start()

    def close(self) -> None:
        """End everything and let go of the database."""
        self.stop()
        self._loop.close()
        self.engine.dispose()

    # ------------------------------------------------------------ what ran

    def executions(self, task: ScheduledTask | str | None = None) -> list[Execution]:
        """All executions, of one task or of all, oldest first: waiting, running, over, and skipped fires with
        their reason."""
        task_id = self._id_of(task) if task is not None else None
        return self._runtime.history.all(task_id)

    def runs(self, task: ScheduledTask | str | None = None) -> list[Execution]:
        """The executions of which at least one attempt has started, oldest first."""
        return [execution for execution in self.executions(task) if execution.attempt > 0]

    def read(self, execution: Execution) -> Execution:
        """The execution as it is recorded now."""
        return self._runtime.history.get(execution.id)

    def attempts(self, execution: Execution) -> Sequence[TaskAttempt]:
        """Its attempts, first to last, with their times and errors."""
        return self._runtime.history.attempts(execution.id)

    def steps(self, execution: Execution) -> Sequence[StepRow]:
        """Its steps and waits, in the order they began; a wait that is not over has no `finished_at`."""
        return self._runtime.history.steps(execution.id, limit=_ALL)

    def children(self, execution: Execution) -> Sequence[Execution]:
        """Its children, in the order they were spawned."""
        return self._runtime.history.children(execution.id)

    def logs(self, execution: Execution) -> Sequence[ExecutionLog]:
        """What its attempts have logged so far."""
        return self._runtime.history.logs(execution.id, limit=_ALL)

    def explain(self, task: ScheduledTask | str, at: datetime | None = None) -> str:
        """In a sentence: why did it run, or not, at that moment."""
        return self.service.explain(self._id_of(task), at)

    def _id_of(self, task: ScheduledTask | str) -> int:
        return self.task(task).id if isinstance(task, str) else task.id

    def _settle(self) -> None:
        """Bring what happens at this moment to its end, and store what running attempts have said."""
        self._runtime.speak_up()
        self._loop.run_until(self._loop.time())


class _OwnSettings(Settings):
    """Settings that come from nowhere but the call."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _make_engine(settings: Settings) -> Engine:
    """A file and not `:memory:`: executors' transactions stay open across an `await`, beside those of the journal,
    so each needs a connection of its own; SQLite's shared cache would let readers see what is not committed."""
    engine = make_engine(settings)

    @event.listens_for(engine, "connect")
    def _never_wait(connection: Any, _record: Any) -> None:
        # One thread: whoever holds the lock cannot let go while another waits for it.
        connection.execute("PRAGMA busy_timeout=0")

    return engine
