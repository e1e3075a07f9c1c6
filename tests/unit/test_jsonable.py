"""What executors return becomes plain JSON and plain text, or a sentence that says why not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from app.core.jsonable import safe_text, to_plain_json


@dataclass
class Point:
    x: int


class Letter(BaseModel):
    sent_on: date


class Colour(Enum):
    RED = "red"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ANY_TEXT = st.text(st.characters(categories=None))
"""Hypothesis leaves out lone surrogates unless it is asked for everything."""


@given(JSON)
def test_json_stays_what_it_is(value: Any) -> None:
    assert to_plain_json(value) == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime(2030, 1, 7, 9, 0, 0, 250_000, tzinfo=UTC), "2030-01-07T09:00:00.250000Z"),
        (date(2030, 1, 7), "2030-01-07"),
        (timedelta(seconds=90), "PT1M30S"),
        (Decimal("0.10"), "0.10"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Point(1), {"x": 1}),
        (Letter(sent_on=date(2030, 1, 7)), {"sent_on": "2030-01-07"}),
        ((1, 2), [1, 2]),
        ({1: "one"}, {"1": "one"}),
        (b"abc", "abc"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        ("zero\x00", "zero\x00"),
        (2**300, 2**300),
    ],
)
def test_what_python_code_returns_has_a_json_form(value: Any, plain: Any) -> None:
    found = to_plain_json({"value": [value]})
    assert found == {"value": [plain]}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_has_no_json_form_is_refused_with_its_type() -> None:
    with pytest.raises(ValueError, match="object"):
        to_plain_json({"deep": [object()]})


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match=r"."):
        to_plain_json(circle)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, b"\xff\xfe"])
def test_text_that_no_encoding_can_write_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        to_plain_json(value)


@given(ANY_TEXT)
def test_safe_text_can_be_stored_anywhere_and_keeps_its_length(value: str) -> None:
    safe = safe_text(value)
    assert "\x00" not in safe
    assert safe.encode().decode() == safe
    assert len(safe) == len(value)
    assert safe_text(safe) == safe


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_safe_text_leaves_good_text_alone(value: str) -> None:
    assert safe_text(value) == value


@pytest.mark.parametrize("bad", ["\x00", "\ud800"])
def test_what_cannot_be_stored_is_marked(bad: str) -> None:
    assert safe_text(f"a{bad}b") == "a\ufffdb"
