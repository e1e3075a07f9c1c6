"""The real command line as a subprocess, on a database and a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class ContentHub:
    """`contenthub …` as a person runs it in `folder`; `settings` are environment variables, `backend` is what a
    team wrote, run before the command."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    backend: str = ""

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "", **settings: str) -> Ran:
        """Run a command to its end and check its exit code."""
        ran = subprocess.run(
            self._argv(arguments),
            cwd=self.folder,
            env=self._environment(settings),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert ran.returncode == code, f"{arguments}: exit code {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return Ran(ran.stdout, ran.stderr)

    @contextmanager
    def started(self, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; it is killed at the end if nobody ended it."""
        process = subprocess.Popen(
            self._argv(arguments),
            cwd=self.folder,
            env=self._environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background has SIGINT ignored, and a child would inherit that.
            preexec_fn=_hear_sigint,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-c", f"{self.backend}\nfrom app.cli.main import app\napp()", *arguments]

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        own = {"DATABASE_URL": f"sqlite:///{self.folder}/contenthub.db", "SQLITE_SYNCHRONOUS": "NORMAL"}
        return {**os.environ, "PYTHONPATH": str(ROOT), **own, **self.settings, **settings}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command wrote."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until `condition()` is true and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.1)
    return value


def _hear_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
