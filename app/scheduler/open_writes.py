"""Sessions in which callers had something recorded (`db=`) and which are not yet committed.

On SQLite such a Session holds the only write lock there is, so that nothing else can be recorded meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from app.core.errors import Conflict
from app.core.language import Said

_HEARD = "contenthub_open_writes"


class OpenWrites:
    """The open Sessions of one process on one SQLite database; safe from any thread."""

    def __init__(self) -> None:
        self._writers: WeakKeyDictionary[Session, ReferenceType[asyncio.Task[Any]]] = WeakKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._writers)

    def add(self, db: Session | AsyncSession) -> None:
        """The running task has written in `db`, which is open until its transaction ends."""
        session = db.sync_session if isinstance(db, AsyncSession) else db
        task = asyncio.current_task()
        if task is None or session.get_bind().dialect.name != "sqlite" or not session.in_transaction():
            return
        self._writers[session] = ref(task)
        if _HEARD in session.info:
            return
        session.info[_HEARD] = True

        @event.listens_for(session, "after_transaction_end")
        def _ended(session: Session, transaction: SessionTransaction) -> None:
            if transaction.parent is None:
                self._writers.pop(session, None)

    def refuse_deadlock(self) -> None:
        """Raises Conflict if the running task waited for its own Session."""
        if not self._writers:
            return
        task = asyncio.current_task()
        if task is not None and any(writer() is task for writer in list(self._writers.values())):
            raise Conflict.of(
                "db",
                Said(
                    "your own Session, with which you asked before, is uncommitted and holds SQLite's write lock: "
                    "commit it or roll it back before you ask without it, or pass it here too (db=…)",
                    "你此前使用的会话尚未提交，占着 SQLite 的写锁：请先提交或回滚，或者这次也传入它（db=…）",
                ),
            )
