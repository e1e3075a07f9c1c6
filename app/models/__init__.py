"""All tables: importing this package completes `Base.metadata`."""

from app.models.alerting import Alert, AlertChannel, AlertRule
from app.models.api_token import ApiToken
from app.models.content import Account, Content, Publication
from app.models.execution_step import ExecutionSignal, ExecutionStep
from app.models.flow import CircuitState, RateBucket, RequestKey
from app.models.node import Node
from app.models.scheduled_task import ScheduledTask
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
    "Publication",
    "RateBucket",
    "RequestKey",
    "ScheduledTask",
    "TaskAttempt",
    "TaskChange",
    "TaskExecution",
]
