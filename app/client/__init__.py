"""A typed client of the REST API, for scripts and for other services.

```python
from app.client import NotFound, SchedulerClient

with SchedulerClient("http://127.0.0.1:8000", token="ch_…") as client:
    execution = client.enqueue_execution("greeting", params={"name": "Ada"})
    done = client.wait(execution.id, timeout=60)
```

Each operation of the API is a method of its name (`operations.py`, generated from the OpenAPI document); answers
are the API's own models. `AsyncSchedulerClient` has the same methods to await.
"""

from app.client.asynchronous import AsyncSchedulerClient
from app.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from app.client.sending import UNSET, Unset
from app.client.synchronous import SchedulerClient
from app.models.task_execution import ExecutionState
from app.scheduler.policies import RetryPolicy
from app.scheduler.schedules import AtSchedule, CronSchedule, IntervalSchedule

__all__ = [
    "UNSET",
    "ApiError",
    "AsyncSchedulerClient",
    "AtSchedule",
    "Conflict",
    "CronSchedule",
    "ExecutionState",
    "Forbidden",
    "IntervalSchedule",
    "Invalid",
    "NotFound",
    "PreconditionFailed",
    "RetryPolicy",
    "SchedulerClient",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "Unset",
]
