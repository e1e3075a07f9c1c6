"""How fast the past is made up for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from app.core.language import Said

BACKFILL = "backfill"
"""Trigger of the executions that make up for the past."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Pace:
    """At most `at_once` running together (of a task whose overlap policy is `allow`), or one that starts every
    `every_seconds`; by default one after the other."""

    at_once: Annotated[int | None, Field(ge=1, le=10_000, strict=True)] = None
    every_seconds: Annotated[float | None, Field(gt=0, le=86_400, allow_inf_nan=False, strict=True)] = None

    @model_validator(mode="after")
    def _consistent(self) -> Pace:
        if self.at_once is not None and self.every_seconds is not None:
            raise ValueError(
                Said(
                    "at_once and every_seconds are two ways to pace; give one of them",
                    "at_once 与 every_seconds 是两种限速方式；请只填写其中一种",
                )
            )
        return self


@plain_dataclass(frozen=True, slots=True)
class Known:
    """A fire of the range that the ledger has."""

    scheduled_for: datetime
    execution_id: int
    state: str


@plain_dataclass(frozen=True, slots=True)
class Backfill:
    """The fires of a past range: what is, or would be, recorded, and what the ledger has already."""

    fires: tuple[datetime, ...]
    known: tuple[Known, ...]
    closed: int
    """Fires outside the task's window or on a closed day: they are left out."""
    execution_ids: tuple[int, ...] = ()
    """What was recorded, in the order of `fires`; empty for a preview."""


@plain_dataclass(frozen=True, slots=True)
class Stopped:
    """What became of the rest of a task's backfills, and of its children."""

    ended: tuple[int, ...]
    """Executions that waited and are over now."""
    asked: tuple[int, ...]
    """Executions that a node holds, which was asked to let go of them."""
