"""Workflows as data: a definition, what it may say, and what is to be done next.

In Python a definition is put together by `chain`, `group`, `step`, `approval` and started by `start`.
"""

from app.workflows.builders import Flow, approval, chain, group, start, step

__all__ = ["Flow", "approval", "chain", "group", "start", "step"]
