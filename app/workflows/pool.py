"""The pool of contents that are ready, in SQL: put in, taken out by priority, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.core.errors import Conflict, NotFound
from app.core.language import Said
from app.db.database import begin_write
from app.models.content import Content
from app.models.content_pool import PoolEntry, PoolState
from app.models.task_execution import FINAL_STATES, TaskExecution


@dataclass(frozen=True, slots=True)
class Published:
    """What became of an entry. `error` None: it is out."""

    entry_id: int
    error: str | None


def add(
    db: Session,
    content_id: int,
    *,
    target: str,
    priority: int,
    not_before: datetime,
    added_by: int | None,
    now: datetime,
) -> PoolEntry:
    """Put a content into the pool; the caller commits. One that waits there gets the new priority and moment, one
    that failed or was withdrawn waits again, one that is being published or is out stays as it is.

    Raises:
        NotFound: no such content.
    """
    begin_write(db.connection())
    if db.get(Content, content_id, with_for_update=True) is None:  # so that two of us come one after the other
        raise NotFound("content", content_id)
    entry = db.scalar(select(PoolEntry).where(PoolEntry.content_id == content_id, PoolEntry.target == target))
    if entry is None:
        entry = PoolEntry(content_id=content_id, target=target, added_at=now)
        db.add(entry)
    elif entry.state in (PoolState.PUBLISHED, PoolState.PUBLISHING):
        return entry
    entry.state = PoolState.WAITING.value
    entry.priority, entry.not_before, entry.added_by, entry.error = priority, not_before, added_by, None
    db.flush()
    return entry


def claim_due(db: Session, execution_id: int, *, target: str, limit: int, now: datetime) -> list[dict[str, int]]:
    """Take up to `limit` due entries for this execution, by priority, of equal ones the longest due first.

    What another scanner had taken and then ended without publishing (it was cancelled) is due again.
    """
    begin_write(db.connection())
    db.execute(
        update(PoolEntry)
        .where(PoolEntry.target == target, _is_left())
        .values(state=PoolState.WAITING.value, claimed_by=None)
    )
    due = (
        select(PoolEntry)
        .where(
            PoolEntry.state == PoolState.WAITING.value,
            PoolEntry.target == target,
            PoolEntry.not_before <= now,
        )
        .order_by(PoolEntry.priority.desc(), PoolEntry.not_before, PoolEntry.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _taken(db, list(db.scalars(due)), execution_id)


def claim_again(db: Session, execution_id: int) -> list[dict[str, int]]:
    """Take what this execution had taken and not published, save what somebody has withdrawn, added again or taken
    since."""
    begin_write(db.connection())
    mine = (
        select(PoolEntry)
        .where(
            PoolEntry.claimed_by == execution_id,
            PoolEntry.state.in_([PoolState.PUBLISHING.value, PoolState.FAILED.value]),
        )
        .order_by(PoolEntry.priority.desc(), PoolEntry.id)
        .with_for_update()
    )
    return _taken(db, list(db.scalars(mine)), execution_id)


def _taken(db: Session, entries: Sequence[PoolEntry], execution_id: int) -> list[dict[str, int]]:
    for entry in entries:
        entry.state, entry.claimed_by, entry.error = PoolState.PUBLISHING.value, execution_id, None
    db.flush()
    return [{"id": entry.id, "content_id": entry.content_id} for entry in entries]


def _is_left() -> ColumnElement[bool]:
    """Whether an entry was taken by a scanner that ended without publishing it: it was cancelled."""
    holder = exists().where(
        TaskExecution.id == PoolEntry.claimed_by,
        TaskExecution.state.not_in([state.value for state in FINAL_STATES]),
    )
    return and_(PoolEntry.state == PoolState.PUBLISHING.value, ~holder)


def settle(db: Session, execution_id: int, outcomes: Sequence[Published], now: datetime) -> None:
    """Record what became of the entries this execution had taken. What is out is out, also if somebody has
    withdrawn it meanwhile."""
    for outcome in outcomes:
        is_out = outcome.error is None
        states = (PoolState.PUBLISHING, PoolState.WITHDRAWN) if is_out else (PoolState.PUBLISHING,)
        state = PoolState.PUBLISHED if is_out else PoolState.FAILED
        db.execute(
            update(PoolEntry)
            .where(
                PoolEntry.id == outcome.entry_id,
                PoolEntry.state.in_([state.value for state in states]),
                PoolEntry.claimed_by == execution_id,
            )
            .values(state=state.value, error=outcome.error, published_at=now if is_out else None)
        )


class Pool:
    """What people and programs ask of the pool; each method is one transaction."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def page(
        self, *, before_id: int | None = None, limit: int = 50, states: Sequence[PoolState] = ()
    ) -> list[tuple[PoolEntry, str]]:
        """Up to `limit` entries with ids below `before_id`, newest first, each with its content's title."""
        query = (
            select(PoolEntry, Content.title)
            .join(Content, Content.id == PoolEntry.content_id)
            .order_by(PoolEntry.id.desc())
            .limit(limit)
        )
        if before_id is not None:
            query = query.where(PoolEntry.id < before_id)
        if states:
            query = query.where(PoolEntry.state.in_([state.value for state in states]))
        with self._sessions() as session:
            return [(entry, title) for entry, title in session.execute(query)]

    def change(self, entry_id: int, changes: Mapping[str, Any]) -> tuple[PoolEntry, str]:
        """Give an entry that waits another priority or moment.

        Raises:
            NotFound, Conflict: it does not wait.
        """
        with self._sessions() as session:
            entry = _waiting(session, entry_id)
            for name, value in changes.items():
                setattr(entry, name, value)
            return _committed(session, entry)

    def withdraw(self, entry_id: int) -> tuple[PoolEntry, str]:
        """Take an entry that waits, or failed, out of the pool.

        Raises:
            NotFound, Conflict: it is being published, or is out.
        """
        with self._sessions() as session:
            entry = _waiting(session, entry_id, PoolState.FAILED)
            entry.state = PoolState.WITHDRAWN.value
            return _committed(session, entry)


def _waiting(session: Session, entry_id: int, *others: PoolState) -> PoolEntry:
    begin_write(session.connection())
    entry = session.get(PoolEntry, entry_id, with_for_update=True)
    if entry is None:
        raise NotFound("pool entry", entry_id)
    is_left = session.scalar(select(PoolEntry.id).where(PoolEntry.id == entry_id, _is_left())) is not None
    if is_left:
        entry.state = PoolState.WAITING.value
    if entry.state not in (PoolState.WAITING, *others):
        raise Conflict(
            Said(
                f"pool entry {entry_id} is {entry.state}; only one that waits can be changed",
                f"内容池条目 {entry_id} 的状态是 {entry.state}；只有等待中的条目可以修改",
            )
        )
    return entry


def _committed(session: Session, entry: PoolEntry) -> tuple[PoolEntry, str]:
    content = session.get_one(Content, entry.content_id)
    session.commit()
    session.refresh(entry)  # moments as they are stored, in UTC
    return entry, content.title
