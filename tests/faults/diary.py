"""The append-only file that executors write: what really ran, on a clock that nobody steps."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


def boot_seconds() -> float:
    """Seconds since the machine's boot, the same in every process, whatever happens to the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Line:
    """One event of one attempt's code."""

    event: Literal["begin", "end"]
    at: float
    execution: int
    attempt: int
    pid: int
    key: str | None
    node: str


class Diary:
    """Lines of up to a page appended by one write each: whole or not at all, whoever is killed."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(
        self, event: Literal["begin", "end"], *, execution: int, attempt: int, key: str | None, node: str
    ) -> None:
        line = Line(event, boot_seconds(), execution, attempt, os.getpid(), key, node)
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, (json.dumps(asdict(line)) + "\n").encode())
        finally:
            os.close(descriptor)

    def read(self) -> list[Line]:
        """All lines, in the order they were written."""
        if not self._file.exists():
            return []
        return [Line(**json.loads(line)) for line in self._file.read_text().splitlines()]
