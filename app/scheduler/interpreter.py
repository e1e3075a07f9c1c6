"""What a running scheduler asks of the interpreter, and gives back when it stops."""

from __future__ import annotations

import gc
import sys

_YOUNG_OBJECTS = 10_000
"""Objects made before CPython looks for garbage among the young; its own 700 are a few dozen executions."""


class InterpreterTuning:
    """Short turns between threads, and no search for garbage among what stays.

    The application's loop shares the interpreter with the journal and the lanes: with CPython's default a thread
    may keep it for 5 ms. And a full collection walks every object of the imported libraries, 0.1 s in which
    nothing else runs; frozen, they are left alone. And what waits for its commit is young and alive: to look it
    through every few dozen executions took a twentieth of their time.
    """

    def __init__(self, switch_interval_seconds: float) -> None:
        self._wanted = switch_interval_seconds
        self._found = sys.getswitchinterval()
        self._thresholds = gc.get_threshold()

    def apply(self) -> None:
        """Take effect; what is alive now is what stays."""
        self._found = sys.getswitchinterval()
        sys.setswitchinterval(min(self._found, self._wanted))
        self._thresholds = gc.get_threshold()
        young, *older = self._thresholds
        if young:  # 0: somebody has switched the collector off
            gc.set_threshold(max(young, _YOUNG_OBJECTS), *older)
        gc.freeze()

    def undo(self) -> None:
        """As it was before `apply()`."""
        sys.setswitchinterval(self._found)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()
