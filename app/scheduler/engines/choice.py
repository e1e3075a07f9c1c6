"""Which engine a process uses: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

from sqlalchemy import Connection
from sqlalchemy import Engine as Database

from app.core.config import Settings
from app.core.errors import InvalidRequest
from app.models.task_execution import Execution
from app.scheduler.engines import embedded
from app.scheduler.engines.pool import NodeParts
from app.scheduler.engines.protocol import Courier, Engine


class _NoCourier:
    """The embedded engine finds everything in the rows themselves."""

    def carry(self, connection: Connection, executions: Sequence[Execution]) -> None:
        """Nothing to write."""

    def carry_cancel(self, connection: Connection, execution_ids: Sequence[int]) -> None:
        """Nothing to write: every node looks once a second for what it shall end."""


def courier_of(settings: Settings) -> Courier:
    """What a process that records executions writes beside them.

    Raises:
        InvalidRequest: SCHEDULER_ENGINE cannot be used with this database or this installation.
    """
    if settings.scheduler_engine == embedded.NAME:
        return _NoCourier()
    courier: Courier = _pgqueuer_jobs(settings).JobCourier()
    return courier


def make_engine(
    settings: Settings, node: NodeParts, *, role: str, claims: Callable[[], Sequence[int] | None]
) -> Engine:
    """The engine of one node. A one-off command (role `cli`) always claims by itself, and only what it asked for.

    Raises:
        InvalidRequest: as `courier_of`.
    """
    runs = role != "api"
    if settings.scheduler_engine == embedded.NAME or role == "cli":
        return embedded.EmbeddedEngine(node, runs=runs, claims=claims)
    _pgqueuer_jobs(settings)
    from app.scheduler.engines.pgqueuer import PgQueuerEngine  # an optional dependency

    return PgQueuerEngine(
        node,
        runs=runs,
        database_url=settings.database_url,
        heartbeat_seconds=settings.scheduler_job_heartbeat_seconds,
    )


def prepare(settings: Settings, database: Database) -> None:
    """Make or update what the engine itself keeps in the database. Blocks.

    Raises:
        InvalidRequest: as `courier_of`.
    """
    if settings.scheduler_engine != embedded.NAME:
        _pgqueuer_jobs(settings).install(database)


def move_engine(settings: Settings, database: Database, *, to: str) -> int:
    """Make the waiting executions ready for another engine; returns for how many a job was written or withdrawn.

    Idempotent, and harmless while nodes of either engine run: whoever comes first claims a row.

    Raises:
        InvalidRequest: as `courier_of`.
    """
    jobs = _pgqueuer_jobs(settings.model_copy(update={"scheduler_engine": "pgqueuer"}))
    if to != embedded.NAME:
        jobs.install(database)
    elif not jobs.is_installed(database):
        return 0
    with database.begin() as connection:
        moved: int = jobs.withdraw_all(connection) if to == embedded.NAME else jobs.send_all(connection)
    return moved


def _pgqueuer_jobs(settings: Settings) -> ModuleType:
    """The module, where it can be used."""
    if not settings.database_url.startswith("postgresql"):
        raise InvalidRequest.of(
            "SCHEDULER_ENGINE", "pgqueuer needs PostgreSQL: set DATABASE_URL to postgresql://…, or use embedded"
        )
    try:
        from app.scheduler.engines import pgqueuer_jobs  # an optional dependency
    except ModuleNotFoundError as error:
        if error.name not in {"pgqueuer", "asyncpg"}:
            raise
        raise InvalidRequest.of(
            "SCHEDULER_ENGINE", "pgqueuer is not installed; run pip install 'contenthub-scheduler[distributed]'"
        ) from error
    return pgqueuer_jobs
