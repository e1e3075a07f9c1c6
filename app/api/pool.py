"""`/pool`: contents that are ready, and when they go out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api import cursor as cursors
from app.api.auth import Operator, RuntimeOf, Viewer
from app.api.problems import documented
from app.models.content_pool import PoolEntry, PoolState
from app.scheduler.schedules import Moment
from app.workflows.pool import Pool

router = APIRouter(prefix="/pool", tags=["pool"])

EntryId = Annotated[int, Path(ge=1, lt=2**31, description="Id of an entry of the pool.")]


class PoolAnswer(BaseModel):
    """An entry of the pool."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    content_id: int
    title: str
    target: str = Field(examples=["directory"])
    priority: int
    not_before: datetime
    state: PoolState
    claimed_by: int | None = Field(description="The execution that publishes it, or did.")
    error: str | None
    added_by: int | None = Field(description="The execution that added it.")
    added_at: datetime
    published_at: datetime | None

    @classmethod
    def of(cls, entry: PoolEntry, title: str) -> PoolAnswer:
        columns = {name: getattr(entry, name) for name in cls.model_fields if name != "title"}
        return cls(**columns, title=title)


class PoolPage(BaseModel):
    items: list[PoolAnswer]
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null: this was the last."
    )


class PoolChange(BaseModel):
    """What to change of an entry that waits."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(default=None, ge=-1000, le=1000, strict=True)
    not_before: Moment | None = Field(default=None, description="With its offset.")


@router.get("", summary="List the pool", responses=documented())
def list_pool(
    runtime: RuntimeOf,
    _caller: Viewer,
    state: Annotated[list[PoolState] | None, Query(description="Any of these states.")] = None,
    cursor: cursors.Cursor = None,
    limit: cursors.Limit = 50,
) -> PoolPage:
    """Entries, newest first."""
    found = Pool(runtime.sessions).page(before_id=cursors.decode(cursor), limit=limit + 1, states=state or ())
    return PoolPage(
        items=[PoolAnswer.of(entry, title) for entry, title in found[:limit]],
        next_cursor=cursors.encode(found[limit - 1][0].id) if len(found) > limit else None,
    )


@router.patch("/{entry_id}", summary="Change an entry", responses=documented(404, 409))
def change_pool_entry(
    entry_id: EntryId,
    change: Annotated[PoolChange, Body(examples=[{"priority": 10}])],
    runtime: RuntimeOf,
    _caller: Operator,
) -> PoolAnswer:
    """Another priority or moment, while it waits."""
    wanted = change.model_dump(exclude_none=True)
    return PoolAnswer.of(*Pool(runtime.sessions).change(entry_id, wanted))


@router.post("/{entry_id}/withdraw", summary="Withdraw an entry", responses=documented(404, 409))
def withdraw_pool_entry(entry_id: EntryId, runtime: RuntimeOf, _caller: Operator) -> PoolAnswer:
    """It will not go out, unless it is added again."""
    return PoolAnswer.of(*Pool(runtime.sessions).withdraw(entry_id))
