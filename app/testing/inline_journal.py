"""A journal without a thread: each write is committed before the call returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from app.core.errors import SchedulerUnavailable
from app.db.database import LOCK_TIMEOUT_SECONDS, begin_write
from app.scheduler.journal import Journal, Step, Write

T = TypeVar("T")

_PAUSE_SECONDS = 0.05


class InlineJournal(Journal):
    """Commits at once. Where an executor holds the write lock across an `await`, virtual time passes until it
    lets go, on `loop`; elsewhere nobody could let go, and the write is refused."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(engine)
        self._loop = loop
        self._deferred: set[asyncio.Task[None]] = set()

    async def commit(self, write: Write[T], on_stored: Callable[[T], None] | None = None) -> T:
        self.open_writes.refuse_deadlock()
        outcome = await self._once_unlocked(write)
        if on_stored is not None:
            on_stored(outcome)
        return outcome

    def step_blocking(self, run: Callable[[Connection], T]) -> T:
        step: Write[T] = Step(run)
        return self._store_now(step)

    def submit(self, write: Write[T], answer: Callable[[T, BaseException | None], None] | None = None) -> None:
        task = self._loop.create_task(self._submitted(write, answer))
        self._deferred.add(task)
        task.add_done_callback(self._deferred.discard)

    def close(self) -> None:
        """Nothing waits: what was handed in is stored."""

    async def _submitted(self, write: Write[T], answer: Callable[[T, BaseException | None], None] | None) -> None:
        outcome: T | None = None
        failure: BaseException | None = None
        try:
            outcome = await self._once_unlocked(write)
        except Exception as error:  # noqa: BLE001 - it is for whoever handed the write in
            failure = error
        if answer is not None:
            answer(outcome, failure)  # type: ignore[arg-type]  # there is no outcome where there is an error

    async def _once_unlocked(self, write: Write[T]) -> T:
        patience = LOCK_TIMEOUT_SECONDS if asyncio.get_running_loop() is self._loop else 0.0
        end = self._loop.time() + patience
        while True:
            try:
                return self._store_now(write)
            except OperationalError as error:
                if "locked" not in str(error.orig):
                    raise
                if self._loop.time() >= end:
                    raise SchedulerUnavailable(
                        "an executor has written through its db and awaits before it is done, so nobody else can "
                        "write: do the slow work first and write last"
                    ) from error
            await asyncio.sleep(_PAUSE_SECONDS)

    def _store_now(self, write: Write[T]) -> T:
        with self.engine.connect() as connection:
            begin_write(connection)
            (outcome,) = type(write).apply_all(connection, [write])
            connection.commit()
        self.groups_committed += 1
        self.writes_committed += 1
        return outcome
