"""All tables: importing this package completes `Base.metadata`."""

from app.models.alerting import Alert, AlertChannel, AlertRule
from app.models.api_token import ApiToken
from app.models.content import Account, Content, Publication
from app.models.content_pool import PoolEntry
from app.models.execution_step import ExecutionSignal, ExecutionStep
from app.models.flow import CircuitState, RateBucket, RequestKey
from app.models.node import Node
from app.models.scheduled_task import ScheduledTask
from app.models.signing_key import SigningKey
from app.models.task_attempt import ExecutionLog, TaskAttempt
from app.models.task_change import TaskChange
from app.models.task_execution import TaskExecution

__all__ = [
    "Account",
    "Alert",
    "AlertChannel",
    "AlertRule",
    "ApiToken",
    "CircuitState",
    "Content",
    "ExecutionLog",
    "ExecutionSignal",
    "ExecutionStep",
    "Node",
    "PoolEntry",
    "Publication",
    "RateBucket",
    "RequestKey",
    "ScheduledTask",
    "SigningKey",
    "TaskAttempt",
    "TaskChange",
    "TaskExecution",
]
