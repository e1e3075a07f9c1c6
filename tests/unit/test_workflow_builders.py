"""Workflows written in Python: what cannot be one is refused where it is written, and the field is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.core.errors import InvalidRequest
from app.workflows import approval, chain, group, step

LOOSE: Any = step
"""As code without types calls it."""


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: LOOSE("a", 5), "params"),
        (lambda: LOOSE("a", [1]), "params"),
        (lambda: step("my-type"), "id"),
        (lambda: step("a", id=""), "id"),
        (lambda: step(""), "type"),
        (lambda: LOOSE("a", compensate="b"), "compensate"),
        (lambda: LOOSE("a", compensate=("b", 5)), "compensate.params"),
        (lambda: LOOSE("a", for_each=["x"]), "for_each"),
        (lambda: step("a", retries=-1), "retries"),
        (lambda: LOOSE("a", on_failure="explode"), "on_failure"),
        (lambda: approval("Go?", id="a b"), "id"),
        (lambda: chain([step("a")]), "parts"),  # type: ignore[arg-type]
        (lambda: chain(step("a"), None), "parts"),  # type: ignore[arg-type]
        (lambda: group("a"), "parts"),  # type: ignore[arg-type]
        (lambda: chain(), "parts"),
    ],
)
def test_what_is_no_step_is_refused_with_its_field(build: Callable[[], Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        build()
    assert field in [error.field for error in refusal.value.errors]


def test_a_type_that_is_no_id_needs_one() -> None:
    assert step("my-type", id="mine").definition()["steps"] == [{"id": "mine", "type": "my-type", "params": {}}]
