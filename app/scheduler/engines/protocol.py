"""What the rest of the scheduler knows of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection

from app.models.task_execution import Execution
from app.scheduler.runner import Attempt


class Courier(Protocol):
    """Writes, beside a change and in its transaction, what an engine must be told of it."""

    def carry(self, connection: Connection, executions: Sequence[Execution]) -> None:
        """These have just been recorded, or put back in line."""

    def carry_cancel(self, connection: Connection, execution_ids: Sequence[int]) -> None:
        """Somebody wants the end of these; other nodes may run them."""


class Engine(Protocol):
    """Carries a recorded execution to a running attempt."""

    name: str

    def owner_of(self, values: dict[str, Any]) -> str | None:
        """Who shall own a row about to be inserted: this node, to start it from memory, or nobody (None)."""

    def offer(self, executions: Sequence[Execution]) -> None:
        """These rows are committed: start what this node owns, look for the others when they are due."""

    def wake(self, at: datetime | None = None) -> None:
        """Look for work soon, or at that moment. Safe from any thread."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to run executions; `loop` is the application's."""

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more, give running attempts the grace period, hand back the rest."""

    def end(self, execution_ids: Sequence[int]) -> None:
        """End executions this node holds: those that wait are cancelled by a write handed to the journal, those
        that run are asked to let go."""

    def unstarted(self, attempt: Attempt) -> None:
        """An attempt the runner would not start."""

    def attempt_ended(self, execution_id: int) -> None:
        """An attempt has ended (the record of it may still be on its way); there is room for another."""

    def settled(self, execution_id: int, retry_at: datetime | None) -> None:
        """The end of an attempt is in the database, or was refused there; `retry_at`: when it is tried again."""

    def lease_lapsed(self) -> None:
        """The database has been out of reach for a lease: end what runs, before others start it."""

    def lose_everything(self) -> None:
        """This node has been declared dead: end what runs, forget what waits."""

    def status(self) -> dict[str, Any]:
        """What runs and waits here."""
