"""Executions that the database says a node holds, and of which the node knows nothing.

The answer to a claim, or to the insert of an execution, can be lost with the connection after the commit. The node
lives, so nobody rescues what it holds; it has to notice by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

LOOKS = 3
"""A claim may be on its way here while we look, and a process may be stopped between two looks."""


class Forgotten:
    """Compares what a node holds with what it knows, look by look."""

    def __init__(self) -> None:
        self._unknown: dict[tuple[int, int], int] = {}
        """How often in a row an execution, at that attempt, was held and not known."""

    def look(self, held: Iterable[tuple[int, int]], is_known: Callable[[int], bool]) -> list[int]:
        """Of those `held` now, as (id, attempt), the executions that this look and those before did not know."""
        self._unknown = {one: self._unknown.get(one, 0) + 1 for one in held if not is_known(one[0])}
        return [execution_id for (execution_id, _), looks in self._unknown.items() if looks >= LOOKS]
