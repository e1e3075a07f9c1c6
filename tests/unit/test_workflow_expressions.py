"""Expressions: what they can say, and that nobody can do harm with one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.jsonable import to_plain_json
from app.workflows.expressions import InvalidExpression, parse_expression, parse_template, render
from app.workflows.sandbox import BUDGET, LARGEST, ExpressionFailed

CONTEXT: dict[str, Any] = {
    "input": {"n": 5, "topic": "AI", "list": [3, 1, 2], "none": None, "long": "x" * 1000},
    "steps": {
        "draft": {
            "state": "success",
            "execution_id": 12,
            "data": {"content_id": 7, "title": "T", "items": [{"a": 1, "ok": True}, {"a": 2}], "keys": "mine"},
            "message": "好",
            "error": None,
            "items": None,
        }
    },
    "item": {"x": 1},
    "index": 0,
    "workflow": {"execution_id": 9},
}


def value_of(source: str) -> Any:
    return parse_expression(source).evaluate(CONTEXT)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("steps.draft.data.content_id", 7),
        ("steps['draft'].data['title']", "T"),
        ("steps.draft.data.items[1].a", 2),
        ("steps.draft.data.items|map('a')|sum", 3),
        ("steps.draft.data.items|select('ok')|length", 1),
        ("steps.draft.data.items|reject('ok')|map('a')", [2]),
        ("steps.draft.data.keys", "mine"),
        ("steps.draft.state == 'success' and input.n >= 5", True),
        ("not (input.n in [1, 2])", True),
        ("steps.draft.error is none", True),
        ("input.n * 2 - 1", 9),
        ("input.n / 2", 2.5),
        ("input.n // 2 + input.n % 2", 3),
        ("input.topic + '!'", "AI!"),
        ("input.list + [4]", [3, 1, 2, 4]),
        ("input.list|sort|join('-')", "1-2-3"),
        ("input.missing|default('d')", "d"),
        ("input.none|default('d')", "d"),
        ("input.missing is defined", False),
        ("'a' if input.n > 3 else 'b'", "a"),
        ("{'n': input.n, 'l': [true, none]}", {"n": 5, "l": [True, None]}),
        ("{{ input.n }}", 5),
        ("input.long|truncate(3)", "xx…"),
        ("workflow.execution_id + index", 9),
        ("item.x", 1),
    ],
)
def test_an_expression_says_what_one_would_think(source: str, value: Any) -> None:
    found = value_of(source)
    assert found == value
    assert type(found) is type(value)


def test_a_template_that_is_one_expression_keeps_its_type_and_others_are_text() -> None:
    params = {
        "id": "{{ steps.draft.data.content_id }}",
        "text": "n={{ input.n }}, {{ true }}, {{ none }}, {{ input.list }}",
        "deep": [{"x": "{{ input.list }}"}],
        "plain": "{% this %} {# and that #} {stay}",
        "{{ key }}": 1,
    }
    assert render(params, CONTEXT) == {
        "id": 7,
        "text": "n=5, true, null, [3,1,2]",
        "deep": [{"x": [3, 1, 2]}],
        "plain": "{% this %} {# and that #} {stay}",
        "{{ key }}": 1,
    }


def test_what_a_step_returned_is_never_read_as_a_template() -> None:
    """Results come from feeds and models: expressions in them are text."""
    context = {**CONTEXT, "input": {"title": "{{ steps.draft.data.content_id }}"}}
    assert render("{{ input.title }} / {{ input.title }}", context).count("{{") == 2


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("10**10**10", "not allowed"),
        ("range(10**9)", "called"),
        ("''.__class__.__mro__()", "called"),
        ("lipsum", "unknown"),
        ("cycler", "unknown"),
        ("self", "unknown"),
        ("namespace", "unknown"),
        ("steps", "name a step"),
        ("steps.draft", "read one of them"),
        ("steps[input.topic].data", "cannot be computed"),
        ("steps.draft.dat", "has no 'dat'"),
        ("input.topic ~ input.topic", "~"),
        ("input.list[0:1]", "slices"),
        ("input|attr('__class__')", "no filter 'attr'"),
        ("input.long|center(1000000000)", "no filter"),
        ("input.list|map(**input)", r"\*\*"),
        ("1, 2", "brackets"),
        ("1) }} and {{ (2", "not closed"),
        ("{% for x in input.list %}", "unexpected"),
        ("input.n is divisibleby 2", "no test"),
        ("", "empty"),
        ("(" * 900 + "1" + ")" * 900, "nested too deeply"),
        ("not " * 400 + "1", "more than"),
        ("1" * 2001, "at most 2000"),
        ("text {{ input.n }}", "without text around"),
        ("1e999", "too large"),
        ("[{'a': -1e999}]|length", "too large"),
    ],
)
def test_what_could_do_harm_is_refused_before_it_runs(source: str, sentence: str) -> None:
    with pytest.raises(InvalidExpression, match=sentence):
        parse_expression(source)


@pytest.mark.parametrize(
    "source",
    [
        "''.__class__",
        "input.__class__",
        "input.list.append",
        "input['__init__']",
        "steps.draft.data.items.__len__",
        "'%999999999d' % 1",
        "'a' * 999999999",
        "[1] * 999999999",
        "9223372036854775807 + 1",
        "1e308 * 10",
        "1" * 1500,
        "input.n / 0",
        "input.none.x",
        "input.topic < input.n",
        "input.list|join(input.n)",
        "input.n|upper",
        "-input.topic",
        "input.missing",
        "[[1], [2]]|sum([])",
        "[[1], [2]]|sum",
        "['a', 'b']|sum('')",
    ],
)
def test_what_has_no_value_fails_with_the_expression(source: str) -> None:
    with pytest.raises(ExpressionFailed, match=r"^.{1,81}: .+"):
        value_of(source)


@pytest.mark.parametrize(
    "source",
    [
        "input.long" + "|tojson" * 60,
        "input.long" + "+input.long" * 40,
        "[" + ", ".join(["input.big"] * 70) + "]",
        "input.big" + "|sort" * 70,
        "input.big|join(input.big|join('x'))",
        "input.big|map(input.big|join)",
        "input.big == input.big and " * 15 + "input.big|unique|length > 0",
    ],
)
def test_time_and_size_have_a_bound(source: str) -> None:
    """The budget is counted in characters and items, so the bound holds on any machine."""
    context = {**CONTEXT, "input": {"long": '"' * 100_000, "big": ["x" * 10] * 60_000}}
    try:
        value = parse_expression(source).evaluate(context)
    except ExpressionFailed:
        return
    assert len(str(value)) < LARGEST < BUDGET


ATOMS = st.sampled_from(
    [
        *("input", "input.n", "input.list", "input.topic", "steps.draft.data", "item", "index", "1", "'x'", "[]"),
        *("none", "true", "input.missing", "steps.draft.items", "{'a': 1}", "1.5", "-1"),
    ]
)
GLUE = st.sampled_from(
    [*(" + ", " - ", " * ", " / ", " // ", " % ", " == ", " < ", " in ", " and ", " or ", " ** ", " ~ "), "|", "."]
)
ENDS = st.sampled_from(
    [
        *(
            "",
            "|length",
            "|first",
            "|last",
            "|join",
            "|int",
            "|float",
            "|round",
            "|abs",
            "|string",
            "|tojson",
            "|sort",
        ),
        *(
            "|unique",
            "|sum",
            "|min",
            "|max",
            "|map('a')",
            "|default(1)",
            "[0]",
            "['a']",
            ".x",
            "|truncate(2)",
            "()",
        ),
        *(" is defined", " is none", " if true", "|upper", "[", ")", "}}", "{{", "|select('a')"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(ATOMS, ENDS, GLUE), min_size=1, max_size=6))
def test_whatever_is_written_gives_json_or_one_of_two_errors(parts: list[tuple[str, str, str]]) -> None:
    source = "".join(atom + end + glue for atom, end, glue in parts)[: -len(parts[-1][2])]
    try:
        value = value_of(source)
    except (InvalidExpression, ExpressionFailed):
        return
    assert to_plain_json(value) == value


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="{}%#'\"ab.|() \n-\\x00é\U0001f600input", max_size=40))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = parse_template(text)
    except InvalidExpression:
        return
    if "{{" not in text:
        assert template.render(CONTEXT) == text


@pytest.mark.parametrize("text", ["{{ " + "(" * 900_000, "{{ '}}' + 1" + " + 1" * 200_000 + " }}", "{" * 900_000])
def test_what_is_too_long_is_not_read_to_its_end(text: str) -> None:
    """The end of it would be reached after seconds, and would say something else."""
    with pytest.raises(InvalidExpression, match="at most 2000 characters; end it"):
        parse_template(text)


def test_comparisons_cost_what_they_read() -> None:
    one = "input.l == input.m"
    source = parse_expression(" and ".join([one] * 20))
    with pytest.raises(ExpressionFailed, match="reads and makes too much"):
        source.evaluate({"input": {"l": list(range(100_000)), "m": list(range(100_000))}})


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("1 if false", "on line 1 evaluated to false and no else section was defined"),
        ("input[input.nothing]", "there is no 'nothing' in an object with n, topic"),
    ],
)
def test_what_is_missing_is_told_as_it_was_written(source: str, sentence: str) -> None:
    with pytest.raises(ExpressionFailed, match=sentence):
        value_of(source)


def test_what_is_asked_for_before_it_is_read_may_be_missing() -> None:
    expression = parse_expression("input.x is defined and input.x > 1")
    assert {reference.optional for reference in expression.references} == {True}
    assert expression.evaluate(CONTEXT) is False
