"""`publishing`: contents go out, each once to each place, whatever is retried."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from loguru import logger
from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.clock import Clock, SystemClock
from app.core.config import Settings, get_settings
from app.core.errors import InvalidParameters, NotFound, SchedulerError
from app.executors.outbound import OUTBOUND_ERRORS
from app.executors.publishers import Publisher, PublishingFailed, PublishingRefused
from app.executors.publishers.directory import DirectoryPublisher
from app.executors.publishers.webhook import WebhookPublisher
from app.models.content import Content, Publication
from app.scheduler.context import find_current_execution
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor, describe_error
