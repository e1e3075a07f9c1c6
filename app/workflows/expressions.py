"""`{{ steps.draft.data.content_id }}`: expressions in a workflow's params, written by people who are not trusted.

Jinja's parser and its sandbox, with all that can be abused taken away before anything is compiled: a tree of
expressions may hold literals, paths into JSON, comparisons, arithmetic on numbers and a few filters of our own.
There are no statements, calls, loops, powers, slices or attributes of Python objects. A path reads keys and
indices of JSON and nothing else, so `steps.x.data.items` is the key `items`, and `.__class__` is a key that is
missing. What an evaluation touches is metered, so its time and its output have a bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from typing import Any

from jinja2 import TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.environment import TemplateExpression

from app.core.language import Said
from app.workflows.sandbox import (
    COMPARED,
    LARGEST,
    SANDBOX,
    BudgetSpent,
    ExpressionFailed,
    bounded,
    metered,
    text_of,
)

LONGEST = 2000
"""Characters of one expression."""
MOST_NODES = 150
"""Parts of one expression."""
_SHOWN = 80
ROOTS = ("input", "steps", "item", "index", "workflow")
STEP_FIELDS = ("state", "data", "message", "error", "execution_id", "items")

_ALLOWED = (
    *(nodes.Name, nodes.Const, nodes.List, nodes.Dict, nodes.Pair, nodes.Getattr, nodes.Getitem),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos),
    *(nodes.Filter, nodes.Test, nodes.Keyword),
)


class InvalidExpression(ValueError):
    """The text is no expression that may be used; the sentence says what to write."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What an expression reads: `steps` and a step's id, `input` and a key, or `item`, `index`, `workflow` alone.

    `optional`: it may be missing, for a `default` or `is defined` stands behind it somewhere in the
    expression.
    """

    root: str
    name: str | None
    optional: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """One checked expression."""

    source: str
    references: frozenset[Reference]
    _compiled: TemplateExpression

    def evaluate(self, context: Mapping[str, Any]) -> Any:
        """Its value, plain JSON.

        Raises:
            ExpressionFailed: something it reads is missing or of another type, or the value grows too large.
        """
        try:
            with metered():
                value = self._compiled(**context)
                if isinstance(value, Undefined):
                    value._fail_with_undefined_error()  # noqa: SLF001 - Jinja's own way to say what is missing
                return bounded(value)
        except BudgetSpent:
            raise
        except ExpressionFailed as error:
            raise ExpressionFailed(f"{_shown(self.source)}: {error}") from None
        except UndefinedError as error:
            raise ExpressionFailed(f"{_shown(self.source)}: {error.message}") from None
        except Exception as error:  # noqa: BLE001 - what the compiled text raises is its author's to mend
            raise ExpressionFailed(f"{_shown(self.source)}: {type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A text with expressions in it. One that is exactly an expression has that expression's value and type."""

    parts: tuple[str | Expression, ...]

    @property
    def expressions(self) -> tuple[Expression, ...]:
        return tuple(part for part in self.parts if isinstance(part, Expression))

    def render(self, context: Mapping[str, Any]) -> Any:
        """Raises ExpressionFailed."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Expression):
            return self.parts[0].evaluate(context)
        texts = [part if isinstance(part, str) else text_of(part.evaluate(context)) for part in self.parts]
        if sum(map(len, texts)) > LARGEST:
            raise ExpressionFailed(
                Said(f"the text is longer than {LARGEST:,} characters", f"文本超过 {LARGEST:,} 个字符")
            )
        return "".join(texts)


@lru_cache(maxsize=2048)
def parse_expression(source: str) -> Expression:
    """An expression as it stands in `when` and `for_each`; braces around it are allowed.

    Raises:
        InvalidExpression
    """
    template = parse_template(source) if "{{" in source else None
    if template is not None:
        if len(template.parts) == 1 and isinstance(template.parts[0], Expression):
            return template.parts[0]
        raise InvalidExpression(
            Said("must be one expression, without text around it", "须为一个表达式，前后没有其他文字")
        )
    return _parse(source)


@lru_cache(maxsize=2048)
def parse_template(text: str) -> Template:
    """A text of params.

    Raises:
        InvalidExpression: an expression in it is wrong, or is not closed.
    """
    if "{{" not in text:
        return Template((text,))
    parts: list[str | Expression] = []
    inside: list[str] | None = None
    length = 0
    try:
        for _line, kind, value in SANDBOX.lex(text):
            if kind == "variable_begin":
                inside, length = [], 0
            elif kind == "variable_end":
                parts.append(_parse("".join(inside or ())))
                inside = None
            elif inside is not None:
                inside.append(value)
                length += len(value)
                if length > LONGEST:  # here already: to read on to its end takes seconds
                    raise _too_long()
            else:
                parts.append(value)
    except TemplateSyntaxError as error:
        raise InvalidExpression(Said(f"{error.message}", f"模板有误：{error.message}")) from None
    if inside is not None:
        raise InvalidExpression(
            Said("an expression is not closed; end it with }}", "表达式没有结束；请以 }} 结尾")
        )
    return Template(tuple(parts))


def is_template(value: object) -> bool:
    """Whether a value of params is filled in when the step starts."""
    return isinstance(value, str) and "{{" in value


def render(value: Any, context: Mapping[str, Any]) -> Any:
    """`value`, with every template in it, at any depth, filled in. Keys are left as they are.

    Raises:
        ExpressionFailed
    """
    if isinstance(value, str):
        return parse_template(value).render(context) if is_template(value) else value
    if isinstance(value, Mapping):
        return {key: render(item, context) for key, item in value.items()}
    if isinstance(value, list):
        return [render(item, context) for item in value]
    return value


def templates_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every template in `value`, with where it stands."""
    if is_template(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from templates_in(item, (*path, str(key)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from templates_in(item, (*path, str(number)))


def _parse(source: str) -> Expression:
    if len(source) > LONGEST:
        raise _too_long()
    if not source.strip():
        raise InvalidExpression(Said("the expression is empty", "表达式为空"))
    try:
        # In parentheses, so that neither `-` at its ends is read as a mark of the template nor a `}}` ends it.
        body = SANDBOX.parse("{{ (" + source + ") }}").body
        if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
            raise InvalidExpression(Said("must be one expression", "须为一个表达式"))
        tree = body[0].nodes[0]
        if sum(1 for _ in tree.find_all(nodes.Node)) > MOST_NODES:
            raise InvalidExpression(
                Said(
                    f"the expression has more than {MOST_NODES} parts; split it over several steps",
                    f"表达式超过 {MOST_NODES} 个部分；请拆成几个步骤",
                )
            )
        references: set[Reference] = set()
        _walk(tree, references, optional=False)
        references -= {replace(reference, optional=False) for reference in references if reference.optional}
        _meter_comparisons(tree)
        compiled = _compile(tree)
    except TemplateSyntaxError as error:
        raise InvalidExpression(
            Said(f"{_shown(source)}: {error.message}", f"{_shown(source)} 有误：{error.message}")
        ) from None
    except (RecursionError, MemoryError, SyntaxError):
        raise InvalidExpression(Said("the expression is nested too deeply", "表达式嵌套过深")) from None
    except ValueError as error:
        if isinstance(error, InvalidExpression):
            raise
        raise InvalidExpression(
            Said(f"{_shown(source)}: {error}", f"{_shown(source)} 有误：{error}")
        ) from None  # a number with thousands of digits
    return Expression(source.strip(), frozenset(references), compiled)


def _too_long() -> InvalidExpression:
    return InvalidExpression(
        Said(
            f"an expression has at most {LONGEST} characters; end it with }}}} or split it over several steps",
            f"表达式最多 {LONGEST} 个字符；请以 }}}} 结尾，或拆成几个步骤",
        )
    )


def _shown(source: str) -> str:
    """An expression in a sentence: its beginning, where it is long."""
    text = " ".join(source.split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _compile(tree: nodes.Node) -> TemplateExpression:
    """What `Environment.compile_expression()` does, but of the very tree that was checked."""
    assignment = nodes.Assign(nodes.Name("result", "store"), tree, lineno=1)
    program = nodes.Template([assignment], lineno=1)
    program.set_environment(SANDBOX)
    return TemplateExpression(SANDBOX.from_string(program), undefined_to_none=False)


def _meter_comparisons(tree: nodes.Node) -> None:
    """`==` and `in` read all of a value, and Jinja compiles them to Python's own, which count nothing."""
    for comparison in list(nodes.Output([tree]).find_all(nodes.Compare)):
        parts: tuple[Any, ...] = (comparison, *comparison.ops)
        for part in parts:
            if not isinstance(part.expr, nodes.Const):
                part.expr = nodes.Filter(part.expr, COMPARED, [], [], None, None, lineno=1)


def _walk(node: nodes.Node, found: set[Reference], *, optional: bool) -> None:
    """Refuse what is not allowed, and collect what is read."""
    if not isinstance(node, _ALLOWED):
        raise InvalidExpression(_refused(node))
    if isinstance(node, nodes.Const) and isinstance(node.value, float) and not isfinite(node.value):
        # Compiled it would be the name `inf`, which nothing has.
        raise InvalidExpression(
            Said("a number is too large; write one below 1e308", "数字过大；请填写小于 1e308 的数")
        )
    if isinstance(node, nodes.Filter | nodes.Test):
        _check_named(node)
        if node.node is None:
            raise InvalidExpression(Said("a filter needs something to its left", "过滤器的左边需要有内容"))
        _walk(node.node, found, optional=optional or node.name in ("default", "defined", "undefined"))
        for argument in (*node.args, *node.kwargs):
            _walk(argument, found, optional=optional)
        return
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        if (reference := _reference(node, optional=optional)) is not None:
            found.add(reference)
            return
        if _is_name(node.node, "steps"):
            raise InvalidExpression(
                Said(
                    f"a step has {', '.join(STEP_FIELDS)}; read one of them, as in steps.ID.data",
                    f"步骤有 {'、'.join(STEP_FIELDS)}；请读取其中一个，例如 steps.ID.data",
                )
            )
    if isinstance(node, nodes.Name):
        found.add(_root(node.name, optional=optional))
        return
    for child in node.iter_child_nodes():
        _walk(child, found, optional=optional)


def _reference(node: nodes.Getattr | nodes.Getitem, *, optional: bool) -> Reference | None:
    """`steps.ID.FIELD` and `input.KEY`; None: another path, whose inside is walked."""
    inner = node.node
    if isinstance(inner, nodes.Getattr | nodes.Getitem) and _is_name(inner.node, "steps"):
        step, field = _key(inner), _key(node)
        if not isinstance(step, str):
            raise InvalidExpression(
                Said(
                    "name the step, as in steps.draft or steps['draft']; its id cannot be computed",
                    "请写明步骤，例如 steps.draft 或 steps['draft']；步骤的 id 不能是计算出来的",
                )
            )
        if field not in STEP_FIELDS:
            raise InvalidExpression(
                Said(
                    f"a step has no {field!r}; it has {', '.join(STEP_FIELDS)}",
                    f"步骤没有 {field!r}；它有 {'、'.join(STEP_FIELDS)}",
                )
            )
        return Reference("steps", step)
    if _is_name(inner, "input"):
        key = _key(node)
        return Reference("input", key, optional) if isinstance(key, str) else None
    return None


def _root(name: str, *, optional: bool) -> Reference:
    if name == "steps":
        raise InvalidExpression(
            Said(
                "name a step and what of it, as in steps.draft.data",
                "请写明步骤以及要读取的内容，例如 steps.draft.data",
            )
        )
    if name not in ROOTS:
        raise InvalidExpression(
            Said(
                f"{name!r} is unknown; an expression can read {', '.join(ROOTS)}",
                f"{name!r} 未知；表达式可以读取 {'、'.join(ROOTS)}",
            )
        )
    return Reference(name, None, optional)


def _is_name(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def _key(node: nodes.Getattr | nodes.Getitem) -> object:
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else None


def _check_named(node: nodes.Filter | nodes.Test) -> None:
    known = SANDBOX.filters.keys() - {COMPARED} if isinstance(node, nodes.Filter) else SANDBOX.tests.keys()
    kind = "filter" if isinstance(node, nodes.Filter) else "test"
    if node.name not in known:
        raise InvalidExpression(
            Said(
                f"there is no {kind} {node.name!r}; there are {', '.join(sorted(known))}",
                f"没有{'过滤器' if kind == 'filter' else '测试'} {node.name!r}；现有 {'、'.join(sorted(known))}",
            )
        )
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise InvalidExpression(Said("* and ** are not allowed", "不允许使用 * 和 **"))


_REFUSED: dict[type[nodes.Node], Said] = {
    nodes.Pow: Said("** is not allowed", "不允许使用 **"),
    nodes.Call: Said(
        "nothing can be called; use a filter, as in steps.draft.data.title|upper",
        "不能调用函数；请使用过滤器，例如 steps.draft.data.title|upper",
    ),
    nodes.Concat: Said(
        "~ is not allowed; write text around {{ }}, or + between texts",
        "不允许使用 ~；请把文字写在 {{ }} 外面，或在文本之间用 +",
    ),
    nodes.Slice: Said(
        "slices are not allowed; use |first, |last or an index", "不允许使用切片；请使用 |first、|last 或下标"
    ),
    nodes.Tuple: Said("write a list in brackets", "请用方括号写列表"),
}


def _refused(node: nodes.Node) -> Said:
    kind = type(node).__name__.lower()
    return _REFUSED.get(type(node), Said(f"{kind} is not allowed in an expression", f"表达式中不允许使用 {kind}"))
