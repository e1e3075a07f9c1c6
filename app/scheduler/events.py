"""What happened, told after the commit that made it true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from loguru import logger

from app.core.errors import stack_of
from app.models.task_execution import ExecutionState
from app.scheduler.breaker import Phase

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """The attempt whose end moved an execution."""

    task_type: str
    duration_seconds: float
    late_seconds: float | None
    """From the scheduled moment to the start; None: not a fire, or not its first attempt."""


@dataclass(frozen=True, slots=True)
class ExecutionChanged:
    """An execution has moved to another state."""

    execution_id: int
    state: ExecutionState
    attempt: AttemptEnded | None = None
    """None: no attempt of this process moved it."""


@dataclass(frozen=True, slots=True)
class CircuitChanged:
    """The circuit breaker of an executor has opened, half opened or closed."""

    task_type: str
    phase: Phase


Subscriber = Callable[[ExecutionChanged], None]
CircuitSubscriber = Callable[[CircuitChanged], None]


class EventBus:
    """Calls every subscriber in the publisher's thread; one that raises is logged and harms nobody."""

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()
        self._circuit_subscribers: tuple[CircuitSubscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every event from now on; the returned function ends that."""
        self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            self._subscribers = tuple(item for item in self._subscribers if item is not subscriber)

        return unsubscribe

    def subscribe_circuits(self, subscriber: CircuitSubscriber) -> Callable[[], None]:
        """Call `subscriber` whenever this process has moved a circuit; the returned function ends that."""
        self._circuit_subscribers = (*self._circuit_subscribers, subscriber)

        def unsubscribe() -> None:
            kept = tuple(item for item in self._circuit_subscribers if item is not subscriber)
            self._circuit_subscribers = kept

        return unsubscribe

    def publish(self, event: ExecutionChanged) -> None:
        _tell(self._subscribers, event)

    def publish_circuit(self, event: CircuitChanged) -> None:
        _tell(self._circuit_subscribers, event)


def _tell(subscribers: tuple[Callable[[T], None], ...], event: T) -> None:
    for subscriber in subscribers:
        try:
            subscriber(event)
        except Exception as error:  # noqa: BLE001 - a subscriber's fault must not stop the writer
            logger.error("event subscriber {!r} failed\n{}", subscriber, stack_of(error))
