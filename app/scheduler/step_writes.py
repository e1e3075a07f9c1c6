"""Whose writes the Session of an attempt holds.

What a step writes through `db` is committed with it. So while it has written, nobody else may write into that
transaction, commit it or roll it back; and there is one Session. Hence the rule: a step writes only while no other
step runs. Whoever breaks it is told so, and no step is stored whose writes are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import InvalidRequest
from app.scheduler.attempt_session import has_writes, is_pending, is_touched, is_writing, roll_back


@dataclass(slots=True, eq=False)
class RunningStep:
    """One try of a step."""

    name: str
    refusal: InvalidRequest | None = None
    """Why it must not be stored, whatever it returns: its writes are gone."""


running_step: ContextVar[RunningStep | None] = ContextVar("running_step", default=None)
"""The step that this code belongs to."""


class StepWrites:
    """See the module. Of one attempt, whose Session comes from a sessionmaker that `watch()` knows."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._running: list[RunningStep] = []
        self._nothing_is_stored = asyncio.Event()
        self._nothing_is_stored.set()
        self._is_acting = False
        _watched[session] = ref(self)

    @property
    def is_idle(self) -> bool:
        """Whether no step runs."""
        return not self._running

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[RunningStep]:
        """One try of a step. Where it raises, what it wrote is rolled back, and nothing of anybody else."""
        step = await self._begin(name)
        token = running_step.set(step)
        try:
            yield step
        except BaseException:
            self._undo()
            raise
        finally:
            running_step.reset(token)
            self._running.remove(step)

    def are_there(self, step: RunningStep) -> bool:
        """Whether there is something to commit with this step, whose function has returned.

        Raises:
            InvalidRequest: it wrote, and that is gone.
        """
        if len(self._running) > 1 and self._has_pending():
            self._refuse_all()
        if step.refusal is not None:
            raise step.refusal
        return len(self._running) == 1 and has_writes(self._session)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """While what a step wrote is committed, perhaps on another thread, no other begins."""
        self._nothing_is_stored.clear()
        try:
            yield
        finally:
            self._nothing_is_stored.set()

    async def _begin(self, name: str) -> RunningStep:
        while not self._nothing_is_stored.is_set():
            await self._nothing_is_stored.wait()
        if len(self._running) == 1 and self._is_written():
            self._refuse(self._running, _in_company(self._running[0]))
        step = RunningStep(name)
        self._running.append(step)
        if is_touched(self._session) and self._session.in_transaction():
            self.begun(self._session.connection())
        return step

    def _undo(self) -> None:
        if len(self._running) > 1 and self._has_pending():
            self._refuse_all()
        elif is_touched(self._session):
            # Beside others too: none of them has written, and PostgreSQL answers none of them in a transaction in
            # which a statement has failed.
            with self._acting():
                roll_back(self._session)

    def _has_pending(self) -> bool:
        return is_touched(self._session) and is_pending(self._session)

    def _is_written(self) -> bool:
        if self._has_pending():
            return True
        return (
            is_touched(self._session)
            and self._session.in_transaction()
            and self._writes_on(self._session.connection())
        )

    def _writes_on(self, connection: Connection) -> bool:
        with self._acting():
            try:
                return is_writing(connection)
            except SQLAlchemyError:
                return True  # PostgreSQL answers nothing in a transaction that has failed: it may have

    @contextmanager
    def _acting(self) -> Iterator[None]:
        """What happens to the Session meanwhile is our doing."""
        self._is_acting = True
        try:
            yield
        finally:
            self._is_acting = False

    # ------------------------------------------------------------ refusals

    def _refuse(self, steps: Iterable[RunningStep], refusal: InvalidRequest) -> None:
        for step in steps:
            step.refusal = step.refusal or refusal
        with self._acting():
            roll_back(self._session)

    def _refuse_all(self) -> InvalidRequest:
        """Something was changed, and no telling by whom: an object's attribute set, or it was deleted."""
        refusal = _refusal(
            f"one of the steps {self._names()} wrote through db while the others ran; such steps go one by one"
        )
        self._refuse(self._running, refusal)
        return refusal

    def _refuse_writer(self) -> InvalidRequest:
        """Whoever has just written, while several steps run."""
        step = running_step.get()
        if step is None or step not in self._running or self._has_pending():
            return self._refuse_all()
        refusal = _in_company(step)
        self._refuse([step], refusal)
        return refusal

    def _names(self) -> str:
        return ", ".join(repr(step.name) for step in self._running)

    # ------------------------------------------------------------ what happens to the Session

    def begun(self, connection: Connection) -> None:
        """A transaction of it is open. Each statement is looked at only while several steps run."""
        if self._running:
            _listen(connection, "rollback", self.rolling_back)
        if len(self._running) > 1:
            _listen(connection, "after_cursor_execute", self.executed)

    def added(self, instance: object) -> None:
        """A new object is about to be in it."""
        if len(self._running) > 1 and inspect(instance, raiseerr=True).key is None:
            raise self._refuse_writer()

    def flushing(self) -> None:
        """Changes of objects are about to be written."""
        if len(self._running) > 1 and is_pending(self._session):
            raise self._refuse_all()

    def executed(self, connection: Connection, *_: object) -> None:
        """A statement has been carried out."""
        if len(self._running) > 1 and not self._is_acting and self._writes_on(connection):
            raise self._refuse_writer()

    def committing(self) -> None:
        """Somebody commits it, other than to store a step."""
        if self._running and self._nothing_is_stored.is_set() and self._is_written():
            raise _refusal(
                f"commit() came while {self._names()} had written through db and was not over: what a step writes "
                "is committed together with its result; leave the commit out"
            )

    def rolling_back(self, connection: Connection) -> None:
        """Somebody rolls it back. A step may do so with what it wrote itself."""
        if self._is_acting or not self._nothing_is_stored.is_set() or not connection.in_transaction():
            return
        others = [step for step in self._running if step is not running_step.get() and step.refusal is None]
        if others and (self._has_pending() or self._writes_on(connection)):
            for step in others:
                step.refusal = _refusal(
                    f"what step {step.name!r} wrote through db was rolled back by other code while it ran; "
                    "only the step itself may call rollback()"
                )


_watched: WeakKeyDictionary[Session, ref[StepWrites]] = WeakKeyDictionary()
"""Weak on both sides: one knows the other, and the last to let go of them is the attempt."""


def _writes_of(session: Session) -> StepWrites | None:
    found = _watched.get(session)
    return found() if found is not None else None


def watch(sessions: sessionmaker[Session]) -> None:
    """Let every `StepWrites` hear what happens to its Session. Costs the others a look each."""
    _listen(sessions, "after_begin", _after_begin)
    _listen(sessions, "before_attach", _before_attach)
    _listen(sessions, "before_flush", _before_flush)
    _listen(sessions, "before_commit", _before_commit)


def _listen(target: Any, name: str, tell: Callable[..., None]) -> None:
    if not event.contains(target, name, tell):
        event.listen(target, name, tell)


def _after_begin(session: Session, _transaction: object, connection: Connection) -> None:
    writes = _writes_of(session)
    if writes is not None:
        writes.begun(connection)


def _before_attach(session: Session, instance: object) -> None:
    writes = _writes_of(session)
    if writes is not None:
        writes.added(instance)


def _before_flush(session: Session, *_: object) -> None:
    writes = _writes_of(session)
    if writes is not None:
        writes.flushing()


def _before_commit(session: Session) -> None:
    writes = _writes_of(session)
    if writes is not None and not session.in_nested_transaction():  # a savepoint's end commits nothing
        writes.committing()


def _in_company(step: RunningStep) -> InvalidRequest:
    return _refusal(f"step {step.name!r} wrote through db while another step ran; such steps go one by one")


def _refusal(sentence: str) -> InvalidRequest:
    return InvalidRequest.of("db", sentence)
