"""The environment expressions run in: paths into JSON, arithmetic, filters of our own; all of it metered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import StrictUndefined, Undefined
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment
from pydantic_core import to_json

LARGEST = 1_000_000
"""Characters and items of a value at most."""
BUDGET = 4 * LARGEST
"""Characters and items that one evaluation touches at most."""
PLAN_BUDGET = 4 * BUDGET
"""Characters and items that all evaluations of one look at a workflow touch at most."""
_LARGEST_NUMBER = 2**63

_left: ContextVar[int] = ContextVar("expression_budget", default=BUDGET)


_left_of_plan: ContextVar[list[int] | None] = ContextVar("plan_budget", default=None)


class ExpressionFailed(ValueError):
    """An expression has no value here; the sentence says why."""


class BudgetSpent(Exception):
    """The expressions that a workflow evaluates at a time do too much together."""

    def __init__(self) -> None:
        super().__init__(
            "the expressions of this workflow read and make too much at a time; hand on less, or give a fan-out a "
            "limit"
        )


@contextmanager
def one_plan() -> Iterator[None]:
    """One look at a workflow: its evaluations have a budget together.

    Raises:
        BudgetSpent: out of whatever is evaluated inside, once it is spent.
    """
    token = _left_of_plan.set([PLAN_BUDGET])
    try:
        yield
    finally:
        _left_of_plan.reset(token)


@contextmanager
def metered() -> Iterator[None]:
    """One evaluation, with a budget of its own."""
    token = _left.set(BUDGET)
    try:
        yield
    finally:
        _left.reset(token)


def bounded(value: Any) -> Any:
    """`value`, if it is plain JSON of a bearable size.

    Raises:
        ExpressionFailed
    """
    size = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        size += 1
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, bool) or item is None:
            continue
        elif isinstance(item, int | float):
            _number(item)
        elif isinstance(item, Mapping):
            size += sum(len(key) for key in item if isinstance(key, str))
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        else:
            raise ExpressionFailed(f"{type(item).__name__} is no JSON")
        if size > LARGEST:
            charge(size)
            raise ExpressionFailed(f"the value is larger than {LARGEST:,} characters")
    charge(size)
    return value


def text_of(value: Any) -> str:
    """A value inside a text: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else to_json(value).decode()


def charge(size: int) -> None:
    """Count what has been read or made.

    Raises:
        ExpressionFailed, BudgetSpent
    """
    plan = _left_of_plan.get()
    if plan is not None:
        plan[0] -= size
        if plan[0] < 0:
            raise BudgetSpent
    left = _left.get() - size
    if left < 0:
        raise ExpressionFailed("it reads and makes too much; split it over several steps")
    _left.set(left)


def _number(value: float) -> float:
    if not abs(value) < _LARGEST_NUMBER:  # also what is no number at all
        raise ExpressionFailed("the number is not finite, or has more than 64 bits")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Environment(SandboxedEnvironment):
    """Jinja's sandbox, in which a path reads JSON and nothing else."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    intercepted_unops = frozenset({"+", "-"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            obj._fail_with_undefined_error()  # noqa: SLF001 - says what is missing further to the left
        if isinstance(argument, Undefined):
            return argument
        if isinstance(obj, Mapping) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        if isinstance(obj, list | str) and isinstance(argument, int) and not isinstance(argument, bool):
            return obj[argument] if -len(obj) <= argument < len(obj) else self._missing(obj, argument)
        return self._missing(obj, argument)

    def _missing(self, obj: Any, argument: Any) -> Undefined:
        return self.undefined(hint=f"there is no {argument!r} in {_described(obj)}")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for side in (left, right):
            if isinstance(side, Undefined):
                side._fail_with_undefined_error()  # noqa: SLF001 - Jinja's own way to say what is missing
        if _is_number(left) and _is_number(right):
            return _number(super().call_binop(context, operator, left, right))
        if operator == "+" and type(left) is type(right) and isinstance(left, str | list):
            if len(left) + len(right) > LARGEST:
                raise ExpressionFailed(f"the value is larger than {LARGEST:,} characters")
            charge(len(left) + len(right))
            return left + right
        raise ExpressionFailed(f"{_described(left)} {operator} {_described(right)} is not defined")

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        if not _is_number(arg):
            raise ExpressionFailed(f"{operator} needs a number, not {_described(arg)}")
        return super().call_unop(context, operator, arg)


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(str(key) for key in list(value)[:10])
        return f"an object with {keys}" if keys else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


# ---------------------------------------------------------------- filters


def _default(value: Any, fallback: Any) -> Any:
    """`fallback` where the value is missing or null."""
    return fallback if isinstance(value, Undefined) or value is None else value


def _join(value: list[Any], separator: str = "") -> str:
    texts = [text_of(item) for item in value]
    if sum(map(len, texts)) + len(separator) * len(texts) > LARGEST:
        raise ExpressionFailed(f"the text is longer than {LARGEST:,} characters")
    return separator.join(texts)


def _int(value: Any) -> int:
    return int(value)  # Python itself refuses texts of thousands of digits


def _float(value: Any) -> float:
    return float(value)


def _round(value: float, digits: int = 0) -> float:
    return round(value, min(max(digits, 0), 15))


def _map(value: list[Any], attribute: str) -> list[Any]:
    """That key of every object in a list; null where one has none."""
    return [item.get(attribute) if isinstance(item, Mapping) else None for item in value]


def _select(value: list[Any], attribute: str, wanted: Any = True) -> list[Any]:  # noqa: FBT002 - an expression's
    """The objects in a list that have `wanted` under that key."""
    return [item for item in value if isinstance(item, Mapping) and item.get(attribute) == wanted]


def _reject(value: list[Any], attribute: str, wanted: Any = True) -> list[Any]:  # noqa: FBT002 - an expression's
    return [item for item in value if not (isinstance(item, Mapping) and item.get(attribute) == wanted)]


def _unique(value: list[Any]) -> list[Any]:
    seen = {to_json(item): item for item in reversed(value)}
    return [seen.pop(key) for key in map(to_json, value) if key in seen]


def _sum(value: list[float]) -> float:
    """Of numbers: of lists it would copy what it has for each of them."""
    if not all(map(_is_number, value)):
        raise TypeError("there is something else than numbers in the list")
    return sum(value)


def _truncate(value: str, length: int) -> str:
    return value if len(value) <= length else value[: max(length - 1, 0)] + "…"


def _sized(value: Sequence[Any] | Mapping[str, Any]) -> int:
    return len(value)


_FILTERS: dict[str, Callable[..., Any]] = {
    "default": _default,
    "length": _sized,
    "count": _sized,
    "join": _join,
    "upper": lambda value: value.upper(),
    "lower": lambda value: value.lower(),
    "trim": lambda value: value.strip(),
    "truncate": _truncate,
    "first": lambda value: value[0],
    "last": lambda value: value[-1],
    "int": _int,
    "float": _float,
    "round": _round,
    "abs": abs,
    "string": text_of,
    "tojson": lambda value: to_json(value).decode(),
    "sort": sorted,
    "unique": _unique,
    "sum": _sum,
    "min": min,
    "max": max,
    "map": _map,
    "select": _select,
    "reject": _reject,
}
COMPARED = "(compared)"
"""What a comparison is put around: it costs what it reads. Nobody can write this name."""
_TESTS = ("defined", "undefined", "none", "string", "number", "boolean", "mapping", "integer", "float")


def _compared(value: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()  # noqa: SLF001 - Jinja's own way to say what is missing
    if isinstance(value, str):
        charge(len(value))
    elif isinstance(value, list | Mapping):
        charge(len(to_json(value)))
    return value


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose input and output are JSON of a bearable size, whatever was handed in."""

    @wraps(function)
    def guarded(value: Any, *arguments: Any, **options: Any) -> Any:
        for part in (value, *arguments, *options.values()):
            if isinstance(part, Undefined):
                if part is value and name == "default":
                    continue
                part._fail_with_undefined_error()  # noqa: SLF001 - Jinja's own way to say what is missing
            bounded(part)
        try:
            return bounded(function(value, *arguments, **options))
        except (TypeError, AttributeError, LookupError, ValueError) as error:
            if isinstance(error, ExpressionFailed):
                raise
            raise ExpressionFailed(f"|{name} cannot be applied to {_described(value)}") from None

    return guarded


def _make() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined,
        # Only expressions exist: `{%` and `{#` in somebody's text are text. No text of JSON has a NUL in it.
        block_start_string="\x00{%",
        block_end_string="%}\x00",
        comment_start_string="\x00{#",
        comment_end_string="#}\x00",
        keep_trailing_newline=True,
        optimized=False,  # nothing is evaluated while it is only being checked
    )
    environment.globals.clear()
    environment.filters = {name: _guarded(name, function) for name, function in _FILTERS.items()}
    environment.filters[COMPARED] = _compared
    environment.tests = {name: environment.tests[name] for name in _TESTS}
    return environment


SANDBOX = _make()
